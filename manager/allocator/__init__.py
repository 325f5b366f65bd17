"""Addresses, subnets, VXLAN identifiers and published ports: who holds what, and who gets what next."""

from manager.allocator.allocator import Allocator
from manager.allocator.claims import Allocations
from manager.allocator.ports import check_conflicts

__all__ = ["Allocations", "Allocator", "check_conflicts"]
