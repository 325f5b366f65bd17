"""How a manager process is told what to be: its command line."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cluster.defaults import stored_cluster
from cluster.errors import InvalidArgument
from cluster.logs import LEVELS
from cluster.spec import ClusterSpec
from cluster.states import Availability
from cluster.validate import check_cluster


class Founding(msgspec.Struct, frozen=True, rename="pascal"):
    """What `swarm init` chooses for good; the Engine API's names."""

    spec: ClusterSpec = ClusterSpec()
    default_addr_pool: tuple[str, ...] = ()
    subnet_size: int = 0
    data_path_port: int = 0
    data_path_addr: str = ""
    availability: Availability = Availability.ACTIVE  # the first node's


@dataclass(frozen=True, slots=True)
class Settings:
    """One manager's place. Addresses are "ip:port"."""

    node_id: str
    state_dir: Path
    certificates: Path
    socket: Path
    listen: str
    advertise: str
    founding: Founding | None = None  # found a new cluster
    peers: dict[str, str] = field(default_factory=dict)  # join these managers: node id → address
    lock_fd: int | None = None  # a socket to the node daemon, which knows the unlock key: manager.locking
    force_new_cluster: bool = False  # the survivor of a lost majority goes on alone
    user: tuple[int, int] | None = None  # become this user and group, without capabilities
    log_level: str = "info"
    log_format: str = "text"


def parse_settings(arguments: list[str]) -> Settings:
    """Read the command line; ends the process with a message when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="manager", description="A manager of a Shoal cluster, run by shoald."
    )
    parser.add_argument("--node-id", required=True)
    parser.add_argument("--state-dir", required=True, type=Path, help="where the replicated state lies")
    parser.add_argument(
        "--certificates", type=Path, help="node.crt, node.key, ca.crt (STATE_DIR/../certificates)"
    )
    parser.add_argument("--socket", required=True, type=Path, help="private unix socket to serve on")
    parser.add_argument("--listen", required=True, help="ip:port of the cluster port")
    parser.add_argument("--advertise", help="ip:port that other nodes use (LISTEN)")
    parser.add_argument(
        "--init", nargs="?", const="{}", metavar="JSON", help="found a cluster: Spec and address pools"
    )
    parser.add_argument(
        "--join", action="append", default=[], metavar="NODE_ID=IP:PORT", help="join these managers"
    )
    parser.add_argument("--lock-fd", type=int, help="open socket over which the daemon tells the unlock key")
    parser.add_argument(
        "--force-new-cluster", action="store_true", help="go on alone with the state that is here"
    )
    parser.add_argument("--user", type=_user, metavar="UID:GID", help="give up root and become this user")
    parser.add_argument("--log-level", default="info", choices=tuple(LEVELS))
    parser.add_argument("--log-format", default="text", choices=("text", "json"))
    given = parser.parse_args(arguments)
    if given.init is not None and given.force_new_cluster:
        parser.error("--init and --force-new-cluster exclude each other")
    if given.init is not None and given.join:
        parser.error("--init and --join exclude each other")
    try:
        founding = None if given.init is None else _founding(given.init)
    except InvalidArgument as error:
        parser.error(f"--init: {error}")
    peers: dict[str, str] = {}
    for peer in given.join:
        node_id, _, address = peer.partition("=")
        if not node_id or not _is_address(address):
            parser.error(f"--join {peer}: expected NODE_ID=IP:PORT")
        peers[node_id] = address
    advertise = given.advertise or given.listen
    for address in (given.listen, advertise):
        if not _is_address(address):
            parser.error(f"{address} is not ip:port")
    return Settings(
        node_id=given.node_id,
        state_dir=given.state_dir,
        certificates=given.certificates or given.state_dir.parent / "certificates",
        socket=given.socket,
        listen=given.listen,
        advertise=advertise,
        founding=founding,
        peers=peers,
        lock_fd=given.lock_fd,
        force_new_cluster=given.force_new_cluster,
        user=given.user,
        log_level=given.log_level,
        log_format=given.log_format,
    )


def _user(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    numbers = int(uid), int(gid)
    if min(numbers) <= 0:
        raise ValueError(text)  # root is what is to be given up
    return numbers


def _founding(text: str) -> Founding:
    try:
        founding = msgspec.json.decode(text, type=Founding)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(str(error)) from error
    check_cluster(founding.spec)
    return msgspec.structs.replace(founding, spec=stored_cluster(founding.spec))


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536
