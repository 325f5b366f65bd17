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

    def unchecked(self, stage: str, text: str, known: str = "") -> None:
        """What can't be seen from here; the summary says so too. Args: text: "whether …", with the reason or
        the way to find out. known: what is known."""
        known = f"{known}; " if known else ""
        self.steps.append(Step(stage, True, f"{known}not checked: {text}", checked=False))

    def bad(self, stage: str, text: str, advice: str) -> None:
        """It gets no further."""
        self.steps.append(Step(stage, False, text, advice))
