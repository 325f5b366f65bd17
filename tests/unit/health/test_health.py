"""The health state machine, and the supervisor on virtual time."""

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cluster.seams import SECOND
from cluster.spec import HealthConfig
from tests.fakes.clock import ManualClock, settle
from tests.fakes.runtime import FakeRuntime
from worker.health import (
    KEPT_PROBES,
    HealthSupervisor,
    after_probe,
    effective_check,
    initial_health,
    pause_before_probe,
    probe_command,
)
from worker.runtime.model import ContainerConfig, ExecResult, Health, HealthCheck, HealthProbe, HealthStatus

CHECK = HealthCheck(test=("CMD", "look"), interval=10 * SECOND, timeout=SECOND, retries=3)


def test_settings_over_the_image_over_defaults() -> None:
    image = HealthConfig(test=["CMD-SHELL", "curl x"], interval=5, retries=7)
    found = effective_check(image, HealthConfig(interval=9))
    assert found == HealthCheck(test=("CMD-SHELL", "curl x"), interval=9, retries=7)
    assert found is not None
    assert probe_command(found) == ["/bin/sh", "-c", "curl x"]
    assert probe_command(CHECK) == ["look"]
    assert effective_check(image, HealthConfig(test=["NONE"])) is None
    assert effective_check(None, None) is None


def probe(at: int, code: int) -> HealthProbe:
    return HealthProbe(start=at, end=at, exit_code=code, output="")


@given(codes=st.lists(st.integers(0, 2), max_size=30), retries=st.integers(1, 4), grace=st.integers(0, 15))
def test_the_rules(codes: list[int], retries: int, grace: int) -> None:
    check = HealthCheck(test=("CMD", "x"), retries=retries, start_period=grace)
    health = initial_health()
    streak, succeeded = 0, False
    for at, code in enumerate(codes):
        before = health
        health = after_probe(health, probe(at, code), check, 0)
        succeeded = succeeded or code == 0
        counted = code != 0 and (before.status is not HealthStatus.STARTING or at >= grace)
        streak = 0 if code == 0 else streak + 1 if counted else streak
        assert health.failing_streak == streak
        if code == 0:
            assert health.status is HealthStatus.HEALTHY
        elif streak >= retries and counted:
            assert health.status is HealthStatus.UNHEALTHY
        else:
            assert health.status is before.status
        assert (health.status is HealthStatus.STARTING) <= (not succeeded)
        assert len(health.log) == min(at + 1, KEPT_PROBES)
        assert health.log[-1].start == at


def test_pauses() -> None:
    check = HealthCheck(test=("CMD", "x"), interval=30, start_period=100, start_interval=2)
    assert pause_before_probe(initial_health(), check, 0) == 2
    assert pause_before_probe(initial_health(), check, 100) == 30
    assert pause_before_probe(Health(status=HealthStatus.HEALTHY), check, 0) == 30


async def test_supervisor() -> None:
    clock = ManualClock()
    answers = {"code": 1}
    runtime = FakeRuntime(
        clock, exec_script=lambda id, argv: ExecResult(exit_code=answers["code"], output=b"hm")
    )
    config = ContainerConfig(id="c" * 64, args=("sleep", "100000"), layers=(Path("/l"),), healthcheck=CHECK)
    plain = ContainerConfig(id="d" * 64, args=("sleep", "100000"), layers=(Path("/l"),))
    supervisor = asyncio.create_task(HealthSupervisor(runtime, clock).run())
    for made in (config, plain):
        await runtime.create(made)
        await runtime.start_container(made.id)
    await settle()

    def health() -> Health:
        return runtime.get(config.id)[1].health

    assert health().status is HealthStatus.STARTING
    await clock.advance(20 * SECOND)
    assert (health().status, health().failing_streak) == (HealthStatus.STARTING, 2)
    await clock.advance(10 * SECOND)
    assert health().status is HealthStatus.UNHEALTHY
    answers["code"] = 0
    await clock.advance(10 * SECOND)
    assert (health().status, health().log[-1].output) == (HealthStatus.HEALTHY, "hm")
    assert runtime.get(plain.id)[1].health.status is HealthStatus.NONE
    # A new life begins anew.
    await runtime.stop(config.id, 0)
    await runtime.start_container(config.id)
    assert health() == Health(status=HealthStatus.STARTING)
    answers["code"] = 1
    await clock.advance(30 * SECOND)
    assert health().status is HealthStatus.UNHEALTHY
    await runtime.remove(config.id, force=True)
    await clock.advance(100 * SECOND)
    assert not supervisor.done()
    supervisor.cancel()
    await asyncio.gather(supervisor, return_exceptions=True)
    await runtime.close()


async def test_a_probe_that_can_not_run_is_a_failed_one_and_the_others_go_on() -> None:
    clock = ManualClock()

    def exhausted(id: str, argv: object) -> ExecResult:
        raise OSError(24, "Too many open files")

    runtime = FakeRuntime(clock, exec_script=exhausted)
    config = ContainerConfig(id="c" * 64, args=("sleep", "100000"), layers=(Path("/l"),), healthcheck=CHECK)
    supervisor = asyncio.create_task(HealthSupervisor(runtime, clock).run())
    await runtime.create(config)
    await runtime.start_container(config.id)
    await settle()
    await clock.advance(10 * SECOND)
    assert not supervisor.done()
    (probe,) = runtime.get(config.id)[1].health.log
    assert (probe.exit_code, probe.output) == (-1, "[Errno 24] Too many open files")
    supervisor.cancel()
    await asyncio.gather(supervisor, return_exceptions=True)
    await runtime.close()
