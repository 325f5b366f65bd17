"""Where tasks go: filters, ranking, and the controller that assigns."""

from manager.scheduler.decide import Decision, Placement, confirm, decide
from manager.scheduler.nodes import NodeTable
from manager.scheduler.scheduler import Scheduler

__all__ = ["Decision", "NodeTable", "Placement", "Scheduler", "confirm", "decide"]
