"""Containers that a user runs on this node by hand, with `docker run` and its kin: no service, no task."""
