"""The kernel's netlink families as byte builders and one socket: the hot path, batched by hand.

Everything cold (making bridges and tunnels, listing links) goes through pyroute2 in `netplane.links`.
"""
