"""Backups of the cluster's state: an encrypted file, from any manager, restored as a cluster of one."""
