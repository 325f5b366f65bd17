"""As much of an assembler for eBPF as the programs here need: instructions by name, jumps by label.

Encodings are those of linux/bpf.h and the kernel's instruction set document (RFC 9669).
"""

import struct
import sys
from collections.abc import Mapping

R0, R1, R2, R3, R4, R6, R7, R8, R9, FRAME = 0, 1, 2, 3, 4, 6, 7, 8, 9, 10
WORD, DOUBLE = 0x00, 0x18  # 4 and 8 bytes

_LOAD, _STORE_VALUE, _STORE, _ALU32, _JUMP, _ALU64 = 0x61, 0x62, 0x63, 0x04, 0x05, 0x07
_MOVE, _ADD, _MODULO = 0xB0, 0x00, 0x90
_FROM_REGISTER = 0x08
_ATOMIC, _FETCH = 0xC3, 0x01
_EQUAL, _NOT_EQUAL, _ALWAYS, _CALL, _EXIT = 0x10, 0x50, 0x00, 0x80, 0x90
_MAP_DESCRIPTOR = 1


class Program:
    """Instructions in the making."""

    def __init__(self) -> None:
        self._instructions: list[tuple[int, int, int, int, str]] = []
        self._labels: dict[str, int] = {}

    def _add(self, code: int, to: int = 0, by: int = 0, offset: int | str = 0, value: int | str = 0) -> None:
        label = offset if isinstance(offset, str) else value if isinstance(value, str) else ""
        self._instructions.append(
            (
                code,
                by << 4 | to if sys.byteorder == "little" else to << 4 | by,
                offset if isinstance(offset, int) else 0,
                value if isinstance(value, int) else 0,
                label,
            )
        )

    def label(self, name: str) -> None:
        """Jumps to `name` come here."""
        self._labels[name] = len(self._instructions)

    def move(self, to: int, by: int) -> None:
        """A register becomes another."""
        self._add(_ALU64 | _MOVE | _FROM_REGISTER, to, by)

    def set(self, to: int, value: int) -> None:
        """A register becomes a number."""
        self._add(_ALU64 | _MOVE, to, value=value)

    def add(self, to: int, value: int) -> None:
        """A number is added to a register."""
        self._add(_ALU64 | _ADD, to, value=value)

    def modulo(self, to: int, by: int) -> None:
        """The rest of a division, 32 bits without sign."""
        self._add(_ALU32 | _MODULO | _FROM_REGISTER, to, by)

    def load(self, to: int, by: int, offset: int, size: int = WORD) -> None:
        """A register becomes what is at another plus `offset`."""
        self._add(_LOAD | size, to, by, offset)

    def store(self, to: int, offset: int, by: int, size: int = WORD) -> None:
        """What is at a register plus `offset` becomes another."""
        self._add(_STORE | size, to, by, offset)

    def store_value(self, to: int, offset: int, value: int, size: int = WORD) -> None:
        """What is at a register plus `offset` becomes a number."""
        self._add(_STORE_VALUE | size, to, 0, offset, value)

    def take_number(self, at: int, offset: int, by: int) -> None:
        """The word at a register plus `offset` grows by another, which becomes what it was (Linux 5.12)."""
        self._add(_ATOMIC, at, by, offset, _ADD | _FETCH)

    def map(self, to: int, name: str) -> None:
        """A register becomes a map."""
        self._add(0x18, to, _MAP_DESCRIPTOR, 0, name)
        self._add(0)

    def call(self, helper: int) -> None:
        """Call a helper of the kernel: arguments in R1 to R5, which are lost; the answer in R0."""
        self._add(_JUMP | _CALL, value=helper)

    def jump(self, label: str) -> None:
        """Go to a label."""
        self._add(_JUMP | _ALWAYS, offset=label)

    def jump_if(self, register: int, value: int, label: str) -> None:
        """Go to a label if a register is a number."""
        self._add(_JUMP | _EQUAL, register, 0, label, value)

    def jump_unless(self, register: int, value: int, label: str) -> None:
        """Go to a label unless a register is a number."""
        self._add(_JUMP | _NOT_EQUAL, register, 0, label, value)

    def jump_if_other(self, one: int, other: int, label: str) -> None:
        """Go to a label if two registers differ."""
        self._add(_JUMP | _NOT_EQUAL | _FROM_REGISTER, one, other, label)

    def exit(self, value: int) -> None:
        """End with an answer."""
        self.set(R0, value)
        self._add(_JUMP | _EXIT)

    def assemble(self, maps: Mapping[str, int]) -> bytes:
        """The bytes, with the descriptors of its maps."""
        found = []
        for place, (code, registers, offset, value, label) in enumerate(self._instructions):
            if label and code == 0x18:
                value = maps[label]
            elif label:
                offset = self._labels[label] - place - 1
            found.append(struct.pack("=BBhi", code, registers, offset, value))
        return b"".join(found)
