"""The walk: source → name → balancing → way → arrival."""

import ipaddress
import socket
from collections.abc import Sequence

from cluster.dataplane import ServiceRecord
from netplane.names import links_of
from netplane.trace.model import Kernel, Scene, Target, Trace, listens
from netplane.trace.progress import Walk
from netplane.trace.published import to_this_node
from netplane.trace.source import HOST, Source, find_source
from netplane.trace.way import Way
from netplane.trace.wire import has_container, own_host, wire_of

_MOST = 8
"""Backends of one address that are looked at."""


async def trace(
    scene: Scene, kernel: Kernel, source: str, target: Target, protocol: str = "tcp", *, probe: bool = False
) -> Trace:
    """Walk. Args: probe: at last try a TCP connection, which the destination sees. Raises NotFound."""
    walk = Walk(scene, kernel, target, protocol)
    sender = find_source(scene, source)
    end: Target | None = target if target.address else None
    if await _source(walk, sender, source):
        wire = wire_of(scene, tuple(scene.local), target.address) if sender.outside else None
        if wire is not None and has_container(scene, wire, target.address):
            await Way(walk, sender).to(target.address)
        elif sender.outside or (source == HOST and not target.address):
            end = await to_this_node(walk, sender, target.address if sender.outside else "")
        else:
            addresses = [target.address] if target.address else _resolve(walk, sender)
            way = Way(walk, sender)
            for address in addresses:
                await _onwards(walk, sender, address, way)
            end = Target(addresses[0], target.port) if addresses else None
    if probe:
        await _probe(walk, sender, end)
    return _told(walk, sender)


def _told(walk: Walk, sender: Source) -> Trace:
    stops = [step for step in walk.steps if not step.good]
    unchecked = [step.text for step in walk.steps if not step.checked]
    if not stops and unchecked:
        more = f", and {len(unchecked) - 1} more" if len(unchecked) > 1 else ""
        summary = (
            f"Nothing found in the way from {sender.title} to {walk.target}, as far as this node could look. "
            f"{unchecked[0][:1].upper()}{unchecked[0][1:]}{more}"
        )
    elif not stops:
        summary = f"Nothing in the way from {sender.title} to {walk.target}."
    elif len(stops) == 1:
        summary = f"It stops here: {stops[0].text}"
    else:
        summary = f"It stops at {len(stops)} places, first here: {stops[0].text}"
    return Trace(
        source=sender.title,
        destination=str(walk.target),
        steps=tuple(walk.steps),
        arrives=not stops,
        summary=summary,
        advice=stops[0].advice if stops else "",
    )


async def _source(walk: Walk, sender: Source, asked: str) -> bool:
    scene = walk.scene
    if sender.elsewhere is not None:
        node = scene.records.peers.get(sender.elsewhere.node_id)
        walk.unchecked(
            "source",
            "what that node's own kernel holds: ask there; what follows is as this node knows it",
            f"{sender.title} runs on node {sender.elsewhere.node_id} "
            f"({node.address if node else 'unknown'}), in networks {scene.names(sender.networks)}",
        )
    elif sender.sandbox is None:
        walk.good("source", f"{sender.title} ({scene.node})" if asked == HOST else sender.title)
    elif not sender.sandbox.interfaces:
        mode = sender.sandbox.spec.mode
        text = f"{sender.title} is in no network (network mode {mode})"
        if mode == HOST:
            walk.bad("source", text, "it uses this node's own network: trace from host instead")
        else:
            walk.bad("source", text, "run it with --network NAME")
        return False
    else:
        held = [f"{scene.network_name(each.network_id)} {each.address}" for each in sender.sandbox.interfaces]
        walk.good("source", f"{sender.title} on this node ({scene.node}), in networks {', '.join(held)}")
    return True


def _resolve(walk: Walk, sender: Source) -> list[str]:
    """The addresses that the sender's name server gives; none if the way ends here."""
    scene, name = walk.scene, walk.target.host.lower().rstrip(".")
    if sender.sandbox is not None:
        name = links_of(sender.sandbox).get(name.encode(), name.encode()).decode()
    asked = [each for each in sender.resolvable if each not in scene.local or each != "bridge"]
    for network_id in asked:
        zone = scene.zone_of(network_id)
        found = zone.names.get(name.encode())
        six = [socket.inet_ntop(socket.AF_INET6, each) for each in zone.names6.get(name.encode(), ())]
        if found is None and not six:
            continue
        network = scene.network_name(network_id)
        if not found and not six:
            walk.bad(
                "name",
                f"{name} is known in network {network}, but none of its tasks takes connections",
                f"see why with `shoal service explain {name.partition('.')[0].removeprefix('tasks.')}`",
            )
            return []
        addresses = [socket.inet_ntoa(each) for each in found or ()]
        walk.good("name", f"{name} → {', '.join((*addresses, *six))}, in network {network}")
        return (addresses or six)[:_MOST]
    elsewhere = [
        network_id
        for network_id in {*scene.records.networks, *scene.local}
        if network_id not in sender.networks and name.encode() in scene.zone_of(network_id).names
    ]
    if elsewhere:
        there = scene.names(elsewhere)
        own = scene.names(sender.networks)
        walk.bad(
            "name",
            f"{sender.title} is in networks {own}, {name} in {there}: they share none",
            "put both into one network: `docker service update --network-add NETWORK SERVICE` for a service, "
            f"`docker network connect {scene.network_name(elsewhere[0])} CONTAINER` for a container",
        )
        return []
    if sender.sandbox is not None and not sender.sandbox.dns_port:
        walk.bad(
            "name",
            f"{sender.title} is in the default bridge network alone, where containers have no names: the "
            f"host's own servers are asked for {name}",
            "run it in a network that you made: `docker network create NAME`, then --network NAME",
        )
        return []
    servers = ", ".join(sender.sandbox.upstreams) if sender.sandbox is not None else ""
    walk.bad(
        "name",
        f"nobody is called {name} in the networks {scene.names(asked)} or any other that this node knows"
        + (f"; other servers are asked for it ({servers})" if servers else ""),
        "check the spelling with `docker service ls`; for a name outside the cluster, see what "
        f"`getent hosts {name}` says in the container, and give its address here",
    )
    return []


async def _onwards(walk: Walk, sender: Source, address: str, way: Way) -> None:
    """From an address."""
    scene = walk.scene
    alone = sender.sandbox is None and sender.elsewhere is None
    if ipaddress.ip_address(address).is_loopback and not alone:
        await _own_loopback(walk, sender)
        return
    if address in await walk.kernel.addresses():
        if own_host(walk, sender, address):
            return
        await to_this_node(walk, sender, address)
        return
    for network_id in scene.records.networks if alone else sender.networks:
        service = scene.service_at(network_id, address)
        if service is not None and alone:
            network = scene.network_name(network_id)
            walk.bad(
                "way",
                f"{address} is the virtual address of service {service.name}: it exists only in containers "
                f"of network {network}",
                "from this node use a published port, or a task's own address",
            )
            return
        if service is not None:
            await _balanced(walk, sender, network_id, service, address, way)
            return
    await way.to(address)


async def _balanced(
    walk: Walk, sender: Source, network_id: str, service: ServiceRecord, address: str, way: Way
) -> None:
    scene = walk.scene
    wanted = [
        scene.like(address, network_id, each)
        for each in scene.records.serving(network_id, service.service_id, scene.withdrawn)
    ]
    network = scene.network_name(network_id)
    title = f"{address} is the virtual address of service {service.name} in network {network}"
    if not wanted:
        others = [
            each for each in scene.records.endpoints(network_id) if each.service_id == service.service_id
        ]
        waiting = (
            f"none of its {len(others)} tasks serves: they start, are not healthy, or stop"
            if others
            else "no task runs"
        )
        walk.bad(
            "balance",
            f"{title}: connections are refused, because {waiting}",
            f"see why with `shoal service explain {service.name}`",
        )
        return
    held: Sequence[str] | None = None
    how = "as this node's records say"
    if sender.sandbox is not None and sender.sandbox.sandbox.netns is not None:
        held = await walk.kernel.backends(sender.sandbox.sandbox.netns, address)
        if held is None:
            walk.bad(
                "balance",
                f"{title}, but the rules in {sender.title}'s namespace don't know it",
                "somebody flushed them: they come back with the next change, or restart the container",
            )
            return
        at_connect, how = None, "so the kernel has it"
        if walk.protocol == "tcp":
            at_connect = await walk.kernel.at_connect(network_id, address)
        _compare(walk, service.name, title, wanted, held, "its rules")
        if at_connect is not None:
            _compare(walk, service.name, title, wanted, at_connect, "its program at connect()")
            held, how = at_connect, "so the kernel has it at connect()"
    walk.good(
        "balance",
        f"{title} → {', '.join(held or wanted)}, one of them for each connection" + f" ({how})",
    )
    for each in (held or wanted)[:_MOST]:
        await way.to(each)


def _compare(
    walk: Walk, service: str, title: str, wanted: Sequence[str], held: Sequence[str], where: str
) -> None:
    """The kernel's backends with those that should be there."""
    if missing := sorted(set(wanted) - set(held)):
        walk.good("balance", f"{', '.join(missing)} of {service} serve, but get nothing new yet by {where}")
    if extra := sorted(set(held) - set(wanted)):
        walk.bad(
            "balance",
            f"{title}, and by {where} the kernel still sends connections to {', '.join(extra)}, which serve "
            "no more",
            "the next change corrects it; if it stays, see the log of shoald on this node",
        )


async def _own_loopback(walk: Walk, sender: Source) -> None:
    netns = sender.sandbox.sandbox.netns if sender.sandbox is not None else None
    if netns is not None and walk.target.port:
        found = await walk.kernel.listening(netns, walk.protocol, walk.target.port)
        if found is None:
            walk.unchecked("arrival", f"whether {sender.title} listens there: this kernel does not tell")
            return
        if listens(found, walk.target.address):
            walk.good("arrival", f"{sender.title} itself listens on port {walk.target.port}")
            return
        walk.bad(
            "arrival",
            f"{walk.target.host} is {sender.title}'s own loopback, and nothing listens there on port "
            f"{walk.target.port}",
            "each container has its own: use the other one's name",
        )
        return
    walk.good("arrival", f"{walk.target.host} is {sender.title}'s own loopback")


async def _probe(walk: Walk, sender: Source, end: Target | None) -> None:
    if sender.outside:
        walk.unchecked(
            "probe",
            "whether it connects, as this node can't try from outside: connect from another machine, or try "
            "`--probe` from host",
        )
        return
    if end is None or not end.port or walk.protocol != "tcp" or sender.elsewhere is not None:
        walk.unchecked(
            "probe", "whether it connects, which needs a source on this node, an address and a TCP port"
        )
        return
    netns = sender.sandbox.sandbox.netns if sender.sandbox is not None else None
    problem = await walk.kernel.connect(netns, end.host, end.port)
    if problem:
        walk.bad(
            "probe",
            f"connecting to {end} failed: {problem}",
            "refused: nothing listens there; timed out: a firewall on the way or at the other node drops it",
        )
    else:
        walk.good("probe", f"connected to {end}")
