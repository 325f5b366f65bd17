"""What was given back a moment ago: it is not given to another before everyone has forgotten whose it was.

A later task of the same service may have it sooner, where addresses are scarce: who remembers it means that
service. So a service whose tasks fail again and again does not use up its networks.

A name's answer lives for seconds in a container, an unanswered flow for half a minute in a node's connection
table, and a node that is cut off is noticed within that time too. The time counts on the leader's own
monotonic clock. A new leader takes up the addresses of tasks whose history is kept; of what else was given
back shortly before it began it knows nothing, and goes on behind the address that was handed out last.
"""

import ipaddress
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from cluster.objects import Task
from cluster.seams import SECOND, Clock
from manager.allocator.addresses import address_number

K = TypeVar("K", bound=Hashable)

REST = 30 * SECOND
_GRAIN = SECOND // 4
"""Ends fall on multiples of it, so that those who wait look again a few times a second at most."""
_SLACK = 100


class _Ends(Generic[K]):
    """Keys with the time of the monotonic clock until which they rest, soonest first."""

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock
        self._ends: dict[K, int] = {}

    def note(self, key: K) -> None:
        """It rests from now on: every other's end comes no later."""
        if self._clock is not None:
            self._ends.pop(key, None)
            self._ends[key] = -(-(self._clock.monotonic() + REST) // _GRAIN) * _GRAIN

    def merge(self, ends: dict[K, int]) -> None:
        """More of them."""
        merged = {key: max(end, self._ends.get(key, end)) for key, end in ends.items()}
        self._ends = dict(sorted({**self._ends, **merged}.items(), key=lambda item: item[1]))

    def now(self) -> dict[K, int]:
        """Those that rest now."""
        now = self._clock.monotonic() if self._clock is not None else 0
        while self._ends and next(iter(self._ends.values())) <= now:
            del self._ends[next(iter(self._ends))]
        return self._ends


class Resting:
    """Addresses by their numbers (networks of the cluster never overlap), each with the service whose task
    had it, and subnets, until they are old."""

    def __init__(self, clock: Clock | None) -> None:
        """Args: clock: the leader's; None: nothing rests."""
        self._clock = clock
        self._addresses: _Ends[int] = _Ends(clock)
        self._owners: dict[int, str] = {}
        self._subnets: _Ends[str] = _Ends(clock)

    def note(self, address: int, service_id: str) -> None:
        """An address was given back now; by a task of a service, or by something else ("")."""
        self._addresses.note(address)
        self._owners[address] = service_id

    def note_subnets(self, subnets: Iterable[str]) -> None:
        """A network was removed now."""
        for subnet in subnets:
            self._subnets.note(subnet)

    def take_up(self, ended: Iterable[Task]) -> None:
        """What tasks gave back that ended in an earlier leader's time, by the managers' wall clocks."""
        if self._clock is None:
            return
        now, monotonic = self._clock.now(), self._clock.monotonic()
        ends: dict[int, int] = {}
        for task in ended:
            left = min(task.updated_at + REST - now, REST)
            for attachment in task.networks if left > 0 else ():
                for address in attachment.addresses:
                    number = address_number(address)
                    if monotonic + left > ends.get(number, 0):
                        ends[number] = monotonic + left
                        self._owners[number] = task.service_id
        self._addresses.merge(ends)

    @property
    def addresses(self) -> dict[int, int]:
        """The numbers of the addresses that rest now, with their ends on the monotonic clock."""
        resting = self._addresses.now()
        if len(self._owners) > 2 * len(resting) + _SLACK:
            self._owners = {number: self._owners[number] for number in resting}
        return resting

    def of_service(self, service_id: str) -> Iterator[int]:
        """The addresses that tasks of a service had, those that rest longest first."""
        for number in self.addresses:
            if service_id and self._owners[number] == service_id:
                yield number

    @property
    def subnets(self) -> list[str]:
        """The subnets that rest now."""
        return list(self._subnets.now())

    def next_end(self) -> int | None:
        """When the next address has rested, on the monotonic clock; None if none rests."""
        return next(iter(self.addresses.values()), None)

    def within(self, subnets: Iterable[str]) -> int:
        """How many addresses of these subnets rest."""
        spans = [ipaddress.IPv4Network(subnet) for subnet in subnets]
        return sum(
            any(int(span.network_address) <= number <= int(span.broadcast_address) for span in spans)
            for number in self.addresses
        )
