"""A trace while it is made."""

from dataclasses import dataclass, field

from netplane.trace.model import Kernel, Scene, Step, Target


@dataclass
class Walk:
    """One trace while it is made."""

    scene: Scene
    kernel: Kernel
    target: Target
    protocol: str
    steps: list[Step] = field(default_factory=list)

    def good(self, stage: str, text: str) -> None:
        """The packet got so far."""
        self.steps.append(Step(stage, True, text))

    def bad(self, stage: str, text: str, advice: str) -> None:
        """It gets no further."""
        self.steps.append(Step(stage, False, text, advice))
