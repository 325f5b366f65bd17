"""What every Runtime must do: run against the fake and against the real one."""

import asyncio
from collections.abc import Callable

import pytest

from cluster.errors import Conflict, InvalidArgument, NotFound
from cluster.seams import MILLISECOND, SECOND
from worker.runtime.launch import ContainerStartFailed
from worker.runtime.model import ContainerConfig, ContainerStatus, Health, HealthStatus
from worker.runtime.runtime import Runtime

MakeConfig = Callable[..., ContainerConfig]
UNKNOWN = "f" * 64


class RuntimeConformance:
    """Subclasses provide the fixtures `runtime` (started) and `config` (makes a config from arguments)."""

    async def test_a_container_runs_to_its_end(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("sh", "-c", "exit 7")
        await runtime.create(made)
        assert runtime.get(made.id)[1].status is ContainerStatus.CREATED
        await runtime.start_container(made.id)
        state = await runtime.wait(made.id)
        assert (state.status, state.exit_code, state.pid) == (ContainerStatus.EXITED, 7, 0)
        assert not state.oom_killed
        assert state.finished_at >= state.started_at > 0

    async def test_running_shows_a_pid(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("sleep", "1000")
        await runtime.create(made)
        await runtime.start_container(made.id)
        state = runtime.get(made.id)[1]
        assert state.status is ContainerStatus.RUNNING
        assert state.pid > 0
        assert [item[0].id for item in runtime.list()] == [made.id]

    async def test_stop_by_the_stop_signal(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("sh", "-c", "trap 'exit 3' TERM; touch /ready; while :; do sleep 0.01; done")
        await runtime.create(made)
        await runtime.start_container(made.id)
        # A shell needs a moment to set its trap, and runc's own first process would take the signal.
        while (await runtime.exec(made.id, ["test", "-e", "/ready"])).exit_code:
            await asyncio.sleep(0.02)
        await runtime.stop(made.id, 1000 * SECOND)
        assert runtime.get(made.id)[1].exit_code == 3

    async def test_stop_kills_what_does_not_listen(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("sleep", "1000")
        await runtime.create(made)
        await runtime.start_container(made.id)
        await runtime.stop(made.id, 50 * MILLISECOND)
        assert runtime.get(made.id)[1].exit_code == 137
        await runtime.stop(made.id)  # stopped already: nothing to do

    async def test_it_can_run_again(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("sh", "-c", "exit 4")
        await runtime.create(made)
        for _ in range(2):
            await runtime.start_container(made.id)
            assert (await runtime.wait(made.id)).exit_code == 4

    async def test_a_missing_command_is_a_start_failure(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("no-such-command")
        await runtime.create(made)
        with pytest.raises(ContainerStartFailed, match="executable file") as caught:
            await runtime.start_container(made.id)
        assert caught.value.exit_code == 127
        state = runtime.get(made.id)[1]
        assert (state.status, state.exit_code) == (ContainerStatus.CREATED, 127)
        assert "executable file" in state.error
        await runtime.remove(made.id)

    async def test_remove(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("sleep", "1000")
        await runtime.create(made)
        await runtime.start_container(made.id)
        with pytest.raises(Conflict, match="is running"):
            await runtime.remove(made.id)
        waiting = asyncio.ensure_future(runtime.wait(made.id))
        await asyncio.sleep(0)
        await runtime.remove(made.id, force=True)
        assert (await waiting).exit_code == 137
        with pytest.raises(NotFound, match="No such container"):
            runtime.get(made.id)
        assert list(runtime.list()) == []

    async def test_refusals(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("sleep", "1000")
        await runtime.create(made)
        with pytest.raises(Conflict, match="exists already"):
            await runtime.create(made)
        with pytest.raises(Conflict, match="not running"):
            await runtime.signal(made.id, 15)
        with pytest.raises(Conflict, match="not running"):
            await runtime.exec(made.id, ["sh", "-c", "exit 0"])
        with pytest.raises(NotFound):
            await runtime.start_container(UNKNOWN)
        with pytest.raises(NotFound):
            await runtime.wait(UNKNOWN)
        with pytest.raises(InvalidArgument, match="no command"):
            await runtime.create(config())

    async def test_exec(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("sleep", "1000")
        await runtime.create(made)
        await runtime.start_container(made.id)
        assert (await runtime.exec(made.id, ["sh", "-c", "exit 5"])).exit_code == 5
        late = await runtime.exec(made.id, ["sleep", "1000"], timeout_ns=50 * MILLISECOND)
        assert late.timed_out
        assert late.exit_code == -1

    async def test_watch_tells_every_change(self, runtime: Runtime, config: MakeConfig) -> None:
        made = config("sleep", "1000")
        watch = runtime.watch()
        await runtime.create(made)
        id, state = await anext(watch)
        assert id == made.id
        assert state is not None
        assert state.status is ContainerStatus.CREATED
        await runtime.start_container(made.id)
        _, state = await anext(watch)
        assert state is not None
        assert state.status is ContainerStatus.RUNNING
        runtime.set_health(made.id, Health(status=HealthStatus.HEALTHY))
        _, state = await anext(watch)
        assert state is not None
        assert state.health.status is HealthStatus.HEALTHY
        await runtime.remove(made.id, force=True)
        seen = [await anext(watch)]
        while seen[-1][1] is not None:
            assert seen[-1][1].exit_code == 137
            seen.append(await anext(watch))

    async def test_many_at_once(self, runtime: Runtime, config: MakeConfig) -> None:
        made = [config("sh", "-c", f"exit {code}") for code in range(12)]

        async def run(item: ContainerConfig) -> int:
            await runtime.create(item)
            await runtime.start_container(item.id)
            return (await runtime.wait(item.id)).exit_code

        assert await asyncio.gather(*(run(item) for item in made)) == list(range(12))
