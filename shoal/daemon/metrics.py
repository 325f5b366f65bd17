"""`--metrics-addr`: what Prometheus asks of this node, in its text format (0.0.4).

Names that dockerd has mean the same; Shoal's own begin with `shoal_`.
"""

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack

from aiohttp import web

from netplane.errors import NetworkError
from netplane.host_table import Drops
from shoal.daemon.config import metrics_place
from worker.engine import Engine
from worker.node import shoal_version
from worker.runtime.model import ContainerStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]
Sample = tuple[Labels, float]


async def serve(engine: Engine, address: str, stack: AsyncExitStack) -> None:
    """Serve `/metrics` at HOST:PORT until the stack closes, by plain HTTP as dockerd does."""
    host, port = metrics_place(address)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=(await read(engine)).encode(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host or None, port).start()


async def read(engine: Engine) -> str:
    """All metrics as they are now."""
    states = [state for _, state in engine.runtime.list()]
    running = sum(state.running for state in states)
    paused = sum(state.status is ContainerStatus.PAUSED for state in states)
    network = engine.network
    families = [
        family(
            "engine_daemon_engine_info",
            "gauge",
            "This engine",
            [({"version": shoal_version(), "daemon_id": engine.id}, 1)],
        ),
        family(
            "engine_daemon_container_states_containers",
            "gauge",
            "Containers of this node by state",
            [
                ({"state": "paused"}, paused),
                ({"state": "running"}, running - paused),
                ({"state": "stopped"}, len(states) - running),
            ],
        ),
        family("shoal_network_names_total", "counter", "Names asked of this node", names(network.asked())),
    ]
    try:
        drops, lost = await network.drops()
    except NetworkError:  # somebody just flushed the rules, and with them the counters
        return "".join(families)
    named = {engine.network_name(network_id): each for network_id, each in drops.items()}
    return "".join((*families, *dropped(named, lost)))


def names(asked: Mapping[str, int]) -> list[Sample]:
    """Questions by where their answers came from."""
    return [({"answered": by}, count) for by, count in asked.items()]


def dropped(drops: Mapping[str, Drops], lost: int) -> list[str]:
    """Drop counters by network's name; `lost`: frames of no network's."""
    samples: list[Sample] = []
    for name, each in sorted(drops.items()):
        for reason in ("isolated", "to_host", "spoofed"):
            samples.append(({"network": name, "reason": reason}, getattr(each, reason)))
    return [
        family("shoal_network_dropped_packets_total", "counter", "Packets dropped, by network", samples),
        family(
            "shoal_network_foreign_frames_total",
            "counter",
            "Tunnel frames dropped because no node of the cluster sent them",
            [({}, lost)],
        ),
    ]


def family(name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> str:
    """One metric with its samples."""
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
