"""Do the event streams tell everything, once, in order, and all of them the same?"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from tests.chaos.history import Change, Operation, Stream

_AGREED = ("action", "name", "old", "at")


def check(streams: Sequence[Stream], operations: Iterable[Operation], last: int) -> list[str]:
    """What is wrong, a line for each; empty when nothing is.

    A stream owes every change from where it began to where it ended, wherever that change is known from:
    another stream, or an object that a client saw. One that broke off, or said that it lost events, owes
    those before the last index that it told.

    Args:
        last: an index that every stream which is still open has been waited for to tell.
    """
    problems: list[str] = []
    chain: dict[tuple[str, str, int], Change] = {}
    for stream in streams:
        problems += _order(stream)
        for change in stream.changes:
            known = chain.setdefault((change.kind, change.id, change.version), change)
            if any(getattr(known, field) != getattr(change, field) for field in _AGREED):
                problems.append(f"{stream.manager} tells {change}, another stream {known}")
    owed = set(chain) | {
        (operation.kind, operation.seen.id, operation.seen.version)
        for operation in operations
        if operation.seen is not None
    }
    by_version = sorted(owed, key=_version)
    for stream in streams:
        problems += _gaps(stream, by_version, last)
    return problems


def _order(stream: Stream) -> list[str]:
    """Each stream by itself."""
    problems = []
    if stream.end == "silent":
        problems.append(f"a stream of {stream.manager} ended as if it were whole")
    versions: dict[tuple[str, str], int] = {}
    gone: set[tuple[str, str]] = set()
    newest = stream.after
    for change in stream.changes:
        key = (change.kind, change.id)
        before = versions.get(key)
        if change.version <= stream.after:
            problems.append(f"{stream.manager} tells {change}, which was before the stream's beginning")
        if change.version < newest:
            problems.append(f"{stream.manager} tells {change} after a change with index {newest}")
        if key in gone or (before is not None and change.version <= before):
            problems.append(f"{stream.manager} tells {change} twice, late, or after the object's removal")
        elif before is not None and change.old != before:
            problems.append(f"{stream.manager} has a gap before {change}: it told version {before} last")
        elif before is None and change.old > stream.after:
            problems.append(f"{stream.manager} has a gap before {change}: it began at {stream.after}")
        newest = max(newest, change.version)
        versions[key] = change.version
        if change.action == "remove":
            gone.add(key)
    return problems


def _gaps(stream: Stream, owed: Sequence[tuple[str, str, int]], last: int) -> list[str]:
    """What others know and this stream does not tell."""
    told = {(change.kind, change.id, change.version) for change in stream.changes}
    # The commit that a broken stream ended in may have had more changes.
    end = last if stream.end == "open" else max((c.version for c in stream.changes), default=0) - 1
    first, beyond = (bisect_right(owed, index, key=_version) for index in (stream.after, end))
    return [
        f"a stream of {stream.manager} from {stream.after} to {end} lacks {kind} {id} at {version}"
        for kind, id, version in owed[first:beyond]
        if (kind, id, version) not in told
    ]


def _version(key: tuple[str, str, int]) -> int:
    return key[2]
