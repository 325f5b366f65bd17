"""Stacks: Compose files read, turned into what the Engine API takes, deployed and removed in order."""
