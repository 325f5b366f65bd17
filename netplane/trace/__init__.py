"""A packet's way through the network plane, step by step, and where it stops. Nothing is changed by it."""
