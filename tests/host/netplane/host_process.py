"""The network plane of one host, driven by JSON lines, in that host's namespaces (see the `lab` fixture)."""

import asyncio
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from cluster.dataplane import DataplaneChanges
from cluster.errors import ShoalError
from cluster.seams import SystemClock
from cluster.spec import NetworkSpec
from netplane.model import Attachment, SandboxSpec
from netplane.plane import NetPlane
from tests.host.netplane.faults import Faults

faults = Faults()


async def create_cancelled(plane: NetPlane, spec: SandboxSpec) -> int:
    """Create again and again, cancelled ever later; how often it was cut short."""
    cut = 0
    for step in range(60):
        creating = asyncio.create_task(plane.create_sandbox(spec))
        await asyncio.sleep(step * 0.0003)
        creating.cancel()
        (outcome,) = await asyncio.gather(creating, return_exceptions=True)
        cut += isinstance(outcome, asyncio.CancelledError)
        await plane.remove_sandbox(spec.id)
    return cut


async def storm(plane: NetPlane, spec: SandboxSpec, times: int) -> None:
    """Create and remove the sandbox, two at once, over and over."""
    other = msgspec.structs.replace(
        spec,
        id=f"{spec.id}-other",
        attachments=(Attachment(spec.attachments[0].network_id, "10.0.1.99/24"),),
    )
    for _ in range(times // 2):
        await asyncio.gather(plane.create_sandbox(spec), plane.create_sandbox(other))
        await asyncio.gather(plane.remove_sandbox(spec.id), plane.remove_sandbox(other.id))


async def network_storm(plane: NetPlane, spec: NetworkSpec, times: int) -> None:
    """Make and remove the network, over and over."""
    for _ in range(times):
        await plane.create_network(spec)
        await plane.remove_network(spec.name)


def census() -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    return {"objects": len(gc.get_objects()), "files": len(os.listdir("/proc/self/fd"))}


async def carry_out(plane: NetPlane, verb: str, arguments: list[Any]) -> Any:
    """One call."""
    match verb:
        case "start" | "stop" | "leave":
            return await getattr(plane, verb)()
        case "join":
            return await plane.join(*arguments)
        case "apply":
            return await plane.apply(msgspec.json.decode(arguments[0], type=DataplaneChanges))
        case "create":
            return await plane.create_sandbox(msgspec.json.decode(arguments[0], type=SandboxSpec))
        case "create_many":
            specs = msgspec.json.decode(arguments[0], type=list[SandboxSpec])
            return await asyncio.gather(*(plane.create_sandbox(spec) for spec in specs))
        case "create_cancelled":
            return await create_cancelled(plane, msgspec.json.decode(arguments[0], type=SandboxSpec))
        case "storm":
            return await storm(plane, msgspec.json.decode(arguments[0], type=SandboxSpec), arguments[1])
        case "network_storm":
            return await network_storm(
                plane, msgspec.json.decode(arguments[0], type=NetworkSpec), arguments[1]
            )
        case "census":
            return census()
        case "fail_at":
            return faults.fail_at(*arguments)
        case "remove":
            return await plane.remove_sandbox(*arguments)
        case "remove_many":
            return await asyncio.gather(*(plane.remove_sandbox(each) for each in arguments[0]))
        case "withdraw" | "restore":
            return await getattr(plane, verb)(*arguments)
        case "drops":
            return await plane.drops()
        case "spare":
            plane.spare = arguments[0]
            return None
        case "encryption":
            return plane.encryption
        case "sandboxes" | "networks":
            return getattr(plane, verb)()
        case "attach":
            return await plane.attach(arguments[0], msgspec.json.decode(arguments[1], type=Attachment))
        case "detach":
            return await plane.detach(*arguments)
        case "create_network":
            return await plane.create_network(msgspec.json.decode(arguments[0], type=NetworkSpec))
        case "remove_network":
            return await plane.remove_network(*arguments)
    raise ValueError(verb)


async def main() -> None:
    """Serve until stdin ends."""
    plane = NetPlane(
        state_dir=Path(sys.argv[1]),
        run_dir=Path(sys.argv[2]),
        node_hostname=sys.argv[3],
        clock=SystemClock(),
        spare=0,
        cgroup=sys.argv[4],
    )
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        verb, *arguments = json.loads(line)
        try:
            reply: dict[str, Any] = {"ok": await carry_out(plane, verb, arguments)}
        except ShoalError as error:
            reply = {"error": type(error).__name__, "message": str(error)}
        sys.stdout.buffer.write(msgspec.json.encode(reply, enc_hook=str) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(main())
