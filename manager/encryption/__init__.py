"""Rotation of the keys of encrypted networks: when a new epoch begins, and when an old one is over."""
