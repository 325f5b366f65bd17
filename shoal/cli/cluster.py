"""`shoal cluster …`: how the managers are, and the ways back."""

import getpass
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from cluster.errors import InvalidArgument, Unavailable
from cluster.seams import MILLISECOND, SECOND
from shoal.cli.client import EngineError, Json
from shoal.cli.output import print_json, say, size, table
from shoal.cli.session import ID_WIDTH, Session, format_option, pass_session

EXIT = {"healthy": 0, "degraded": 3, "danger": 4}
"""The exit status of `health`; 1 is for a question that could not be asked."""
PASSPHRASE = "SHOAL_BACKUP_PASSPHRASE"  # noqa: S105 - a variable's name
_PORT = 2377


@click.group()
def cluster() -> None:
    """How the managers are; backup and restore."""


@cluster.command()
@format_option
@pass_session
def health(session: Session, form: str) -> int:
    """Ask every manager how it is, also without a quorum.

    Ends with 0 when all is well, 3 when something needs attention (degraded), 4 when the cluster accepts no
    changes or would not after one more failure (danger).
    """
    found = session.engine.get("/shoal/cluster/health")
    if form == "json":
        print_json(found)
        return EXIT[found["Status"]]
    header = ["ID", "HOSTNAME", "ADDRESS", "ROLE", "TERM", "CONTACT", "LAG", "APPLIED", "SYNC P50/P99"]
    table(
        [*header, "SNAPSHOT", "LOG", "FREE", "CERTIFICATE"], [_row(manager) for manager in found["Managers"]]
    )
    quorum = found["Quorum"]
    may_fail = quorum["MayFail"]
    standing = "writes have stopped" if may_fail < 0 else f"{may_fail} more may fail"
    click.echo(
        f"\n{found['Status']}: {quorum['Answering']} of {quorum['Managers']} managers take part, "
        f"{quorum['Needed']} are needed; {standing}"
    )
    for problem in found["Problems"]:
        click.echo(f"- {problem}")
    for advice in found["Advice"]:
        click.echo(f"(advice: {advice})")
    return EXIT[found["Status"]]


def _row(manager: Json) -> list[str]:
    first = [manager["ID"][:ID_WIDTH], manager["Hostname"], manager["Address"], manager["Role"]]
    if manager["Role"] == "unreachable":
        return [*first, *[""] * 9]
    age = manager["SnapshotAge"]
    expires = datetime.fromtimestamp(manager["CertificateExpires"] / SECOND, UTC)
    return [
        *first,
        str(manager["Term"]),
        _duration(manager["LastContact"]),
        str(manager["Lag"]),
        str(manager["AppliedIndex"]),
        f"{_duration(manager['SyncP50'])}/{_duration(manager['SyncP99'])}",
        f"{manager['SnapshotIndex']} ({_duration(age)} old)" if age is not None else "none",
        size(manager["JournalBytes"]),
        size(manager["FreeBytes"]),
        f"{expires:%Y-%m-%d}",
    ]


def _duration(nanoseconds: int | None) -> str:
    if nanoseconds is None:
        return "never"
    for unit, length in (("d", 86400 * SECOND), ("h", 3600 * SECOND), ("min", 60 * SECOND), ("s", SECOND)):
        if nanoseconds >= 2 * length:
            return f"{nanoseconds // length}{unit}"
    return f"{nanoseconds / MILLISECOND:.3g}ms"


def _secret_options(command: "Callable[..., Any]") -> "Callable[..., Any]":
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option(
        "--passphrase-file",
        type=file,
        help=f"The passphrase is in this file (default: {PASSPHRASE}, or asked for).",
    )(command)


def _passphrase(file: Path | None, confirm: bool) -> str:
    """From the file, the environment, or the person at the terminal."""
    if file is not None:
        return file.read_text().rstrip("\r\n")
    if given := os.environ.get(PASSPHRASE):
        return given
    if not sys.stdin.isatty():
        raise InvalidArgument(f"there is no passphrase: use --passphrase-file or the variable {PASSPHRASE}")
    found = getpass.getpass("Passphrase of the backup: ")
    if confirm and getpass.getpass("Once more: ") != found:
        raise InvalidArgument("the two passphrases differ")
    return found


@cluster.command()
@click.argument("file")
@_secret_options
@click.option("--unlock-key", is_flag=True, help="Encrypt with the cluster's unlock key, not a passphrase.")
@click.option("--verify", is_flag=True, help="Take none: check that FILE is whole and can be decrypted.")
@pass_session
def backup(session: Session, file: str, passphrase_file: Path | None, unlock_key: bool, verify: bool) -> None:
    """Write the cluster's state to FILE, encrypted (- for standard output).

    It holds everything: services, secrets, the CA's key. It is taken from a confirmed state, on any manager,
    while the cluster works, and it is checked as it is written.
    """
    if verify:
        with _opened(file) as source:
            _verify(source.read, _passphrase(passphrase_file, confirm=False), file)
        return
    secret = "" if unlock_key else _passphrase(passphrase_file, confirm=True)
    body = {"Passphrase": secret, "UnlockKey": unlock_key}
    key = session.engine.get("/swarm/unlockkey").get("UnlockKey", "") if unlock_key else secret
    if file == "-":
        _take(session, body, sys.stdout.buffer, key, "standard output")
        sys.stdout.buffer.flush()
        return
    temporary = Path(f"{file}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            _take(session, body, target, key, file)
            target.flush()
            os.fsync(target.fileno())
        temporary.replace(file)
    except OSError as error:
        raise Unavailable(f"can't write {file}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _opened(file: str) -> IO[bytes]:
    try:
        return open(0, "rb", closefd=False) if file == "-" else open(file, "rb")
    except OSError as error:
        raise InvalidArgument(f"can't read {file}: {error.strerror}") from error


def _take(session: Session, body: Json, target: IO[bytes], secret: str, name: str) -> None:
    """Write what comes, and read it again as it goes by."""
    with session.engine.stream("POST", "/shoal/cluster/backup", body=body) as response:

        def read(count: int) -> bytes:
            data = response.read(count)
            target.write(data)
            return data

        _verify(read, secret, name)


def _verify(read: Callable[[int], bytes], secret: str, name: str) -> None:
    from manager.backup.file import read_backup  # decrypting takes modules that other commands don't wait for

    contents = read_backup(read, secret)
    head = contents.head
    taken = datetime.fromtimestamp(head.taken_at / SECOND, UTC)
    counted = ", ".join(f"{count} {kind}" for kind, count in contents.summary().items())
    say(
        f"{name}: whole; cluster {head.cluster_id} at index {head.index}, {taken:%Y-%m-%d %H:%M:%S} UTC; "
        f"{counted}; encrypted with the {head.sealed_with}"
    )


@cluster.command()
@click.argument("file")
@_secret_options
@click.option("--advertise-addr", default="", help="The address that other nodes reach this one at.")
@click.option(
    "--listen-addr", default=f"0.0.0.0:{_PORT}", show_default=True, help="Where to listen for nodes."
)
@click.option("--data-path-addr", default="", help="The address for container traffic, if another.")
@click.option("-f", "--force", is_flag=True, help="Leave the cluster that this node is in.")
@pass_session
def restore(
    session: Session,
    file: str,
    passphrase_file: Path | None,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    force: bool,
) -> None:
    """Make this engine the only manager of the cluster in FILE (- for standard input).

    The old managers are replaced, as by --force-new-cluster: stop them first. Their nodes stay known as
    workers, and workers that still run come back by themselves when they can reach an address they know.
    """
    options = {
        "ListenAddr": listen_addr,
        "AdvertiseAddr": advertise_addr,
        "DataPathAddr": data_path_addr,
        "Passphrase": _passphrase(passphrase_file, confirm=False),
        "Force": force,
    }
    with _opened(file) as source:
        body = _Body(json.dumps(options).encode() + b"\n", source)
        headers = {"Content-Type": "application/octet-stream"}
        with session.engine.stream("POST", "/shoal/cluster/restore", body=body, headers=headers) as response:
            found = json.loads(response.read())
    click.echo(f"Cluster {found['ClusterID']} restored: this node ({found['NodeID']}) is its only manager.")
    try:
        nodes = session.engine.get("/nodes")
    except EngineError as error:
        say(f"it is still starting: {error}")
        return
    say(f"it knows {len(nodes)} nodes; `shoal node ls` shows which are back")


class _Body:
    """The options, then the file, as one thing to read."""

    def __init__(self, head: bytes, source: IO[bytes]) -> None:
        self._head = head
        self._source = source

    def read(self, count: int = -1) -> bytes:
        """The next bytes."""
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._source.read(count)
