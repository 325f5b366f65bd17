"""The cluster part of the Docker Engine API, served by every manager."""
