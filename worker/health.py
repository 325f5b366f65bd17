"""Health checks: a pure state machine for one container, and a supervisor that probes all of them.

Rules are Docker's: after a failure within the start period nothing counts; `retries` failures in a row make
a container unhealthy; one success makes it healthy and ends the start period.
"""

import asyncio
import logging
from contextlib import suppress

from cluster.errors import Conflict, NotFound, ShoalError
from cluster.seams import SECOND, Clock
from cluster.spec import HealthConfig
from worker.runtime.model import (
    ContainerState,
    ContainerStatus,
    Health,
    HealthCheck,
    HealthProbe,
    HealthStatus,
)
from worker.runtime.runtime import Runtime

log = logging.getLogger("shoal.health")

KEPT_PROBES = 5
MAX_OUTPUT = 4096
"""Bytes of a probe's output that are kept, as in Docker."""

_DEFAULT_INTERVAL = _DEFAULT_TIMEOUT = 30 * SECOND
_DEFAULT_RETRIES = 3
_DEFAULT_START_INTERVAL = 5 * SECOND


def effective_check(image: HealthConfig | None, wanted: HealthConfig | None) -> HealthCheck | None:
    """The check to run: the container's settings over the image's over Docker's defaults; None for none."""
    base, over = image or HealthConfig(), wanted or HealthConfig()
    test = over.test or base.test
    if not test or test[0] == "NONE" or len(test) < 2:
        return None
    return HealthCheck(
        test=tuple(test),
        interval=over.interval or base.interval or _DEFAULT_INTERVAL,
        timeout=over.timeout or base.timeout or _DEFAULT_TIMEOUT,
        retries=over.retries or base.retries or _DEFAULT_RETRIES,
        start_period=over.start_period or base.start_period,
        start_interval=over.start_interval or base.start_interval or _DEFAULT_START_INTERVAL,
    )


def probe_command(check: HealthCheck) -> list[str]:
    """What to run for `["CMD", …]` and `["CMD-SHELL", "…"]`."""
    if check.test[0] == "CMD-SHELL":
        return ["/bin/sh", "-c", check.test[1]]
    return list(check.test[1:])


def initial_health() -> Health:
    """Before the first probe."""
    return Health(status=HealthStatus.STARTING)


def after_probe(health: Health, probe: HealthProbe, check: HealthCheck, started_at: int) -> Health:
    """The health after one more probe."""
    kept = (*health.log, probe)[-KEPT_PROBES:]
    if probe.exit_code == 0:
        return Health(status=HealthStatus.HEALTHY, failing_streak=0, log=kept)
    starting = health.status is HealthStatus.STARTING
    if starting and probe.start - started_at < check.start_period:
        return Health(status=HealthStatus.STARTING, failing_streak=health.failing_streak, log=kept)
    streak = health.failing_streak + 1
    status = HealthStatus.UNHEALTHY if streak >= check.retries else health.status
    return Health(status=status, failing_streak=streak, log=kept)


def pause_before_probe(health: Health, check: HealthCheck, since_start: int) -> int:
    """Nanoseconds to wait before the next probe, `since_start` after the container started."""
    if health.status is HealthStatus.STARTING and since_start < check.start_period:
        return min(check.interval, check.start_interval)
    return check.interval


class HealthSupervisor:
    """Probes every running container that has a check, and records what it finds in the runtime."""

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime, self._clock = runtime, clock
        self._probing: dict[str, tuple[int, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Watch and probe until cancelled."""
        watch = self._runtime.watch()
        try:
            async with asyncio.TaskGroup() as group:
                for config, state in self._runtime.list():
                    self._follow(group, config.id, state)
                async for id, changed in watch:
                    self._follow(group, id, changed)
        finally:
            self._probing.clear()

    def _follow(self, group: asyncio.TaskGroup, id: str, state: ContainerState | None) -> None:
        started, task = self._probing.get(id, (0, None))
        if state is not None and state.running and state.started_at == started:
            return
        if task is not None:
            task.cancel()
            del self._probing[id]
        if state is None or not state.running:
            return
        config, _ = self._runtime.get(id)
        if config.healthcheck is not None and config.healthcheck.test:
            probing = group.create_task(self._probe(id, config.healthcheck, state.started_at))
            self._probing[id] = (state.started_at, probing)

    async def _probe(self, id: str, check: HealthCheck, started_at: int) -> None:
        with suppress(NotFound):
            while True:
                _, state = self._runtime.get(id)
                since_start = self._clock.now() - started_at
                await self._clock.sleep(pause_before_probe(state.health, check, since_start))
                if self._runtime.get(id)[1].status is ContainerStatus.PAUSED:
                    continue
                probe = await self._run(id, check)
                if probe is None:
                    return
                _, state = self._runtime.get(id)
                health = after_probe(state.health, probe, check, started_at)
                if health.status is not state.health.status:
                    log.info("health changed", extra={"container": id, "health": health.status.value})
                self._runtime.set_health(id, health)

    async def _run(self, id: str, check: HealthCheck) -> HealthProbe | None:
        """One probe; None when the container has ended."""
        begun = self._clock.now()
        try:
            result = await self._runtime.exec(
                id, probe_command(check), timeout_ns=check.timeout, output_limit=MAX_OUTPUT
            )
        except (Conflict, NotFound):
            return None
        except (ShoalError, OSError) as error:
            return HealthProbe(start=begun, end=self._clock.now(), exit_code=-1, output=str(error))
        output = result.output.decode(errors="replace")
        if result.timed_out:
            output = f"Health check exceeded timeout ({check.timeout / SECOND:g}s): {output}"
        return HealthProbe(start=begun, end=self._clock.now(), exit_code=result.exit_code, output=output)
