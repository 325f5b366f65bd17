"""A kernel that refuses: the n-th thing asked of it fails, half done where the kernel does things so."""

import errno
from collections.abc import Sequence
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError as RouteError

from netplane import links
from netplane.errors import NetworkError
from netplane.libnftables import LibNftables
from netplane.netlink.wire import ACK, NetlinkError, NetlinkSocket


class Faults:
    """`fail_at` arms; `fired` says whether it came to that."""

    def __init__(self) -> None:
        self._left = 0
        self.fired = False
        self._wrap_netlink()
        self._wrap_rules()
        self._wrap_route()

    def fail_at(self, step: int) -> bool:
        """Let the step fail, counted from now; 0: none. Returns whether the one before was reached."""
        fired, self.fired = self.fired, False
        self._left = step
        return fired

    def _due(self) -> bool:
        if self._left:
            self._left -= 1
            self.fired = not self._left
            return self.fired
        return False

    def _wrap_netlink(self) -> None:
        exchange = NetlinkSocket._exchange

        def failing(sock: NetlinkSocket, messages: Sequence[bytes], flags: Sequence[int]) -> Any:
            if not self._due():
                return exchange(sock, messages, flags)
            if all(flag & ACK for flag in flags):  # no transaction: what came before is done
                half = len(messages) // 2
                exchange(sock, messages[:half], flags[:half])
            raise NetlinkError(errno.ENOBUFS, "injected", 0)

        NetlinkSocket._exchange = failing  # type: ignore[method-assign]

    def _wrap_rules(self) -> None:
        run = LibNftables.run

        def failing(rules: LibNftables, commands: str) -> None:
            if self._due():
                raise NetworkError("nftables: injected")
            run(rules, commands)

        LibNftables.run = failing  # type: ignore[method-assign]

    def _wrap_route(self) -> None:
        due = self._due

        class Failing:
            """A route socket that may refuse to change something."""

            def __init__(self, **settings: Any) -> None:
                self._route = IPRoute(**settings)

            def __enter__(self) -> "Failing":
                self._route.__enter__()
                return self

            def __exit__(self, *error: Any) -> None:
                self._route.__exit__(*error)

            def __getattr__(self, verb: str) -> Any:
                original = getattr(self._route, verb)

                def failing(*words: Any, **settings: Any) -> Any:
                    if words and words[0] in ("add", "del", "set", "replace", "change") and due():
                        raise RouteError(errno.ENOBUFS, "injected")
                    return original(*words, **settings)

                return failing

        links.IPRoute = Failing  # type: ignore[attr-defined]
