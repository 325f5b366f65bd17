"""The node-local part of the Docker Engine API: system, images, containers, volumes."""
