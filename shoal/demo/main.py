"""`make demo`: starts a cluster, runs a web service, scales it, kills the leader, and measures it all."""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.errors import Conflict, ShoalError
from shoal.cli.client import Engine
from shoal.demo import registry, web_image
from shoal.playground.boxes import default_daemon
from shoal.playground.layout import CLIENT, USUAL_DIRECTORY, Host, Settings, default_directory
from shoal.playground.playground import Playground

HOSTS = 3
PORT = 8080
IMAGE = f"{registry.ADDRESS}/demo/web:1"
DEFAULT_CACHE = Path("/var/cache/shoal/packages")
NODE_DOWN_TIMEOUT = 30.0


class StepFailed(ShoalError):
    """A step of the demo was not true."""


def check(condition: bool, what: str) -> None:
    """Raise StepFailed unless it holds."""
    if not condition:
        raise StepFailed(what)


def wait_for(what: str, condition: Callable[[], bool], timeout: float) -> float:
    """Seconds until it holds; StepFailed when it does not in time."""
    begun = time.monotonic()
    while time.monotonic() - begun < timeout:
        try:
            if condition():
                return time.monotonic() - begun
        except ShoalError:
            pass  # a manager that is just losing its leader answers 503: ask again
        time.sleep(0.05)
    raise StepFailed(f"{what}: not within {timeout:.0f} s")


class Demo:
    """The steps, in order; `figures` become the table at the end."""

    def __init__(self, directory: Path, cache: Path, console: Console) -> None:
        self._playground = Playground(directory)
        self._cache = cache
        self._console = console
        self._figures: list[tuple[str, str]] = []
        self._service = ""

    def run(self) -> None:
        """All of it."""
        begun = time.monotonic()
        self._start()
        self._push()
        self._create()
        self._scale()
        self._fetch()
        self._kill_the_leader()
        self._figures.append(("the whole demo", f"{time.monotonic() - begun:.1f} s"))
        self._close()

    # --- steps --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        seconds = self._timed(
            f"Starting {HOSTS} hosts, all of them managers",
            lambda: self._playground.up(Settings(hosts=HOSTS, managers=HOSTS, daemon=default_daemon())),
        )
        nodes = self._engine().get("/nodes")
        check(len(nodes) == HOSTS, f"{HOSTS} nodes in the cluster, not {len(nodes)}")
        self._figures.append((f"{HOSTS} hosts up and one cluster", f"{seconds:.1f} s"))

    def _push(self) -> None:
        def work() -> None:
            registry.start(self._playground, self._cache)
            with tempfile.TemporaryDirectory() as scratch:
                archive = Path(scratch) / "web.tar"
                web_image.build(archive, IMAGE, self._cache)
                self._push_from_client(archive)

        seconds = self._timed("Starting a registry, building a web image from packages, pushing it", work)
        self._figures.append(("registry up, image built and pushed", f"{seconds:.1f} s"))

    def _push_from_client(self, archive: Path) -> None:
        target = self._playground.layout.home(CLIENT) / "web.tar"
        shutil.copy(archive, target)
        run = self._playground.run(CLIENT, [sys.executable, "-m", "shoal.demo.push", str(target), IMAGE])
        target.unlink()
        check(run.returncode == 0, f"pushing the image: {run.stderr.strip()}")

    def _create(self) -> None:
        engine = self._engine()
        engine.post("/networks/create", {"Name": "shop", "Driver": "overlay"})
        spec = {
            "Name": "web",
            "TaskTemplate": {
                "ContainerSpec": {"Image": IMAGE, "StopGracePeriod": 5_000_000_000},
                "RestartPolicy": {"Condition": "any", "Delay": 1_000_000_000},
                "Networks": [{"Target": "shop"}],
            },
            "Mode": {"Replicated": {"Replicas": 3}},
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": PORT, "Protocol": "tcp"}]},
        }
        self._service = engine.post("/services/create", spec)["ID"]
        seconds = self._timed(
            f"Creating service web: 3 replicas on overlay network shop, port {PORT} published",
            lambda: wait_for("3 replicas run", lambda: len(self._running()) == 3, 30),
        )
        self._figures.append(("create to 3 running, image pulled on every host", f"{seconds:.1f} s"))

    def _scale(self) -> None:
        engine = self._engine()
        service = engine.get(f"/services/{self._service}")
        service["Spec"]["Mode"]["Replicated"]["Replicas"] = 12
        path = f"/services/{self._service}/update"
        engine.post(path, service["Spec"], version=service["Version"]["Index"])
        seconds = self._timed(
            "Scaling web from 3 to 12",
            lambda: wait_for("12 replicas run", lambda: len(self._running()) == 12, 30),
        )
        self._figures.append(("scale 3 → 12", f"{seconds:.1f} s"))

    def _fetch(self) -> None:
        self._console.print("[bold]Fetching the page through every host, from outside the cluster[/bold]")
        answered: Counter[str] = Counter()
        for host in self._playground.hosts():
            names = [self._get(host) for _ in range(8)]
            answered.update(names)
            self._console.print(f"  http://{host.address}:{PORT}  answered by {', '.join(names[:4])}, …")
        check(len(answered) >= 6, f"requests are spread over the tasks: only {len(answered)} answered")
        self._figures.append(("tasks that answered 24 requests", str(len(answered))))

    def _kill_the_leader(self) -> None:
        leader = self._leader()
        survivors = [host for host in self._playground.hosts() if host.name != leader.name]
        load = self._start_load(survivors)
        time.sleep(1)
        self._console.print(f"[bold]Taking the power from {leader.name}, which leads[/bold]")
        self._playground.kill(leader.name)
        begun = time.monotonic()
        engine = self._playground.engine(survivors[0].name)
        write = wait_for("a write succeeds again", lambda: self._write(engine), 30)
        elected = self._leader(survivors)
        self._console.print(f"  {elected.name} leads now; writes succeed again after {write:.2f} s")
        wait_for(
            "12 replicas run on the survivors",
            lambda: len(self._running(engine, but=leader.name)) == 12,
            NODE_DOWN_TIMEOUT,
        )
        moved = time.monotonic() - begun
        self._console.print(f"  its tasks run elsewhere after {moved:.1f} s")
        time.sleep(1)
        result = self._end_load(load)
        answers = sum(stream["answers"] for stream in result.values())
        failures = sorted(failure for stream in result.values() for failure in stream["failures"])
        self._console.print(
            f"  meanwhile {answers} requests to the two surviving hosts were answered, {len(failures)} failed"
        )
        check(answers > 100, "requests to the surviving hosts go on")
        slowest = max(time for time, _ in failures) - min(time for time, _ in failures) if failures else 0.0
        check(
            slowest < 10, f"requests stop failing once the dead host is out: they failed for {slowest:.0f} s"
        )
        self._figures += [
            ("leader's host loses power → writes succeed", f"{write:.2f} s"),
            ("… → all 12 replicas run again", f"{moved:.1f} s"),
            ("requests to the survivors meanwhile", f"{answers} answered, {len(failures)} failed"),
        ]

    def _close(self) -> None:
        table = Table(title="What was measured", title_justify="left", show_header=False)
        for name, value in self._figures:
            table.add_row(name, value)
        self._console.print(table)
        option = ""
        if self._playground.layout.directory != USUAL_DIRECTORY:  # sudo drops SHOAL_PLAYGROUND_DIR
            option = f" --dir {shlex.quote(str(self._playground.layout.directory))}"
        survivor = next(state.host for state in self._playground.states() if state.state == "running")
        program = Path(sys.executable).with_name("shoal")
        docker = "docker" if shutil.which("docker") else str(program)
        self._console.print("The cluster is up. Try:")
        self._console.print(f'  eval "$({program} playground env{option} {survivor.name})"', soft_wrap=True)
        self._console.print(f"  {docker} service ps web", soft_wrap=True)
        self._console.print(f"  {docker} service scale web=20", soft_wrap=True)
        self._console.print("and take it down with:")
        self._console.print(f"  sudo {program} playground down{option}", soft_wrap=True)

    # --- parts --------------------------------------------------------------------------------------------

    def _engine(self) -> Engine:
        return self._playground.engine("host1")

    def _timed(self, title: str, work: Callable[[], Any]) -> float:
        begun = time.monotonic()
        with self._console.status(title):
            work()
        seconds = time.monotonic() - begun
        self._console.print(f"[bold]{title}[/bold]: {seconds:.1f} s")
        return seconds

    def _running(self, engine: Engine | None = None, but: str = "") -> list[dict[str, Any]]:
        """The service's tasks that run and should; not those on the node named `but`."""
        engine = engine or self._engine()
        away = {node["ID"] for node in engine.get("/nodes") if node["Description"]["Hostname"] == but}
        filters = {"service": [self._service], "desired-state": ["running"]}
        tasks = engine.get("/tasks", filters=filters)
        return [t for t in tasks if t["Status"]["State"] == "running" and t.get("NodeID") not in away]

    def _leader(self, hosts: list[Host] | None = None) -> Host:
        hosts = hosts or self._playground.hosts()
        nodes = self._playground.engine(hosts[0].name).get("/nodes")
        names = [n["Description"]["Hostname"] for n in nodes if (n.get("ManagerStatus") or {}).get("Leader")]
        check(len(names) == 1, f"exactly one manager leads, not {names}")
        return self._playground.host(names[0])

    def _write(self, engine: Engine) -> bool:
        name = f"probe-{time.monotonic_ns()}"
        made = engine.post("/configs/create", {"Name": name, "Data": "cHJvYmU="})
        engine.delete(f"/configs/{made['ID']}")
        return True

    def _get(self, host: Host) -> str:
        url = f"http://{host.address}:{PORT}/"
        run = self._playground.run(CLIENT, ["curl", "-fsS", "-m", "3", url])
        check(run.returncode == 0, f"{url} answers: {run.stderr.strip()}")
        return run.stdout.split(" ")[0]

    def _start_load(self, hosts: list[Host]) -> "subprocess.Popen[str]":
        urls = [f"http://{host.address}:{PORT}/" for host in hosts]
        process = self._playground.popen(
            CLIENT,
            [sys.executable, "-m", "shoal.demo.load", "--rate", "25", *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    @staticmethod
    def _end_load(process: "subprocess.Popen[str]") -> dict[str, Any]:
        output, _ = process.communicate(timeout=20)
        result: dict[str, Any] = json.loads(output)
        return result


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=default_directory())
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    options = parser.parse_args()
    console = Console(highlight=False)
    demo = Demo(options.dir, options.cache, console)
    try:
        demo.run()
    except Conflict as error:
        console.print(f"[red]{error}[/red]", soft_wrap=True)
        sys.exit(2)
    except (ShoalError, subprocess.SubprocessError, OSError) as error:
        console.print(f"[red]failed:[/red] {error}", soft_wrap=True)
        console.print(f"the hosts' logs are in {options.dir}/host*/shoald.log; take the playground down with")
        console.print(f"  sudo {Path(sys.executable).with_name('shoal')} playground down --dir {options.dir}")
        sys.exit(1)


if __name__ == "__main__":
    main()
