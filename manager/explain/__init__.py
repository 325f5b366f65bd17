"""Why things are as they are: pure functions from a view and a time to sentences.

What will be done next is not told by rules of its own, but by the very decisions of the orchestrators, made
about the present state and not carried out.
"""

from manager.explain.service import ServiceExplanation, explain_service
from manager.explain.task import TaskExplanation, explain_task

__all__ = ["ServiceExplanation", "TaskExplanation", "explain_service", "explain_task"]
