"""Everything about packets on one node: drivers, addresses, DNS, VIPs, the routing mesh."""
