"""What a change would do, decided by the controllers' own functions on a copy of the state. No effects."""

from manager.planning.outcome import Outcome, outcome
from manager.planning.proposal import Proposal, propose
from manager.planning.simulation import Simulation

__all__ = ["Outcome", "Proposal", "Simulation", "outcome", "propose"]
