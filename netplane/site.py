"""Where sandboxes' namespaces are built and demolished, one after the other."""

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netplane import builder, netns
from netplane.model import Interface, Segment
from netplane.netlink.wire import NetlinkSocket


class Site:
    """One at a time: the kernel has one lock for all of it, and threads that wait for it only burn time."""

    def __init__(self, host: NetlinkSocket, segments: Callable[[], Sequence[Segment]]) -> None:
        self._host = host
        self._segments = segments
        self._lock = asyncio.Lock()
        self._doomed: list[tuple[Path, tuple[Interface, ...]]] = []

    async def build(
        self,
        path: Path,
        interfaces: tuple[Interface, ...],
        segments: Mapping[str, Segment],
        handles: builder.Handles,
        *,
        embedded: bool,
    ) -> None:
        """Build a namespace; `embedded`: with name server and own rules. If this fails, demolish it."""
        async with self._lock:
            await netns.in_thread(
                functools.partial(
                    builder.build,
                    path,
                    interfaces,
                    segments,
                    self._host,
                    handles,
                    rules=embedded,
                    name_server=embedded,
                )
            )

    async def demolish(self, path: Path, interfaces: tuple[Interface, ...]) -> None:
        """Take a namespace apart, together with all others that wait for it meanwhile. Safe to repeat."""
        remains = (path, interfaces)
        self._doomed.append(remains)
        async with self._lock:
            if remains in self._doomed:
                doomed, self._doomed = self._doomed, []
                segments = {segment.network_id: segment for segment in self._segments()}
                await netns.in_thread(functools.partial(builder.demolish, doomed, segments, self._host))

    async def plug(
        self,
        path: Path,
        interface: Interface,
        interfaces: Sequence[Interface],
        segment: Segment,
        handles: builder.Handles,
        *,
        open_sockets: bool,
    ) -> None:
        """Give a namespace one more interface. If this fails, unplug it."""
        async with self._lock:
            await netns.in_thread(
                functools.partial(
                    builder.plug,
                    path,
                    interface,
                    interfaces,
                    segment,
                    self._host,
                    handles,
                    open_sockets=open_sockets,
                )
            )

    async def unplug(self, path: Path, interface: Interface, remaining: Sequence[Interface]) -> None:
        """Take an interface from a namespace. Safe to repeat."""
        async with self._lock:
            segments = {segment.network_id: segment for segment in self._segments()}
            await netns.in_thread(
                functools.partial(builder.unplug, path, interface, remaining, segments, self._host)
            )
