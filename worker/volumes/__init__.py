"""Volumes of this node: named and anonymous local ones."""
