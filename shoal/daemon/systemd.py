"""What systemd is told: that shoald is ready, lives, and how it fares (sd_notify(3), sd_watchdog_enabled(3)).

A message is a datagram to the socket that the environment names. Without systemd nothing is sent. The
watchdog is fed from shoald's own loop, so that a loop that hangs starves it.
"""

import logging
import os
import socket
from collections.abc import Callable, MutableMapping

from cluster.seams import SECOND, Clock

log = logging.getLogger("shoal.daemon.systemd")

STATUS_EVERY = 10 * SECOND
_MICROSECOND = 1000


class Systemd:
    """The service manager above this process, if there is one."""

    def __init__(self, environment: MutableMapping[str, str], clock: Clock) -> None:
        """Takes its variables out of the environment: they are not for children."""
        self._clock = clock
        self._address = environment.pop("NOTIFY_SOCKET", "")
        timeout = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self.watchdog = int(timeout) * _MICROSECOND if meant and timeout.isdigit() else 0
        """Nanoseconds of silence after which systemd ends this process; 0: never."""

    def ready(self) -> None:
        """Start-up is complete: units that wait for this one go on."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    async def run(self, alive: Callable[[], bool], status: Callable[[], str]) -> None:
        """Feed the watchdog while `alive` says so, and tell `status` when it has changed. Never returns."""
        period = min(self.watchdog // 3, STATUS_EVERY) if self.watchdog else STATUS_EVERY
        told = ""
        while True:
            now = status()
            if now != told:
                self._tell(f"STATUS={now}")
                told = now
            if self.watchdog:
                if alive():
                    self._tell("WATCHDOG=1")
                else:
                    log.error("not well: letting systemd's watchdog run out")
            await self._clock.sleep(period)

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.connect(name)
                sender.send(message.encode())
        except OSError as error:
            log.warning("can't tell systemd", extra={"message_text": message, "error": str(error)})
