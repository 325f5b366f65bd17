"""Containers on this node: OCI bundles on overlayfs, run by conmon and crun (or runc)."""
