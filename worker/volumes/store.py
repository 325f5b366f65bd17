"""Local volumes: a directory each, `<root>/<name>/_data`, with its record beside it."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cluster.codec import UNREADABLE
from cluster.errors import Conflict, InvalidArgument, NotFound
from cluster.seams import Clock, Random
from cluster.volume_options import check_local_options
from worker.runtime.rootfs import remove_tree
from worker.volumes.filesystems import unmount_volume

log = logging.getLogger("shoal.volumes")

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""Docker's label for volumes without a name of their own; prune removes only these by default."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_RECORD = "volume.json"


class Volume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A volume. `created_at` in ns since the epoch; `path` is where its files are."""

    name: str
    created_at: int = 0
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    path: Path = Path()

    @property
    def anonymous(self) -> bool:
        """True for one that a container made for itself."""
        return ANONYMOUS_LABEL in self.labels


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    created_at: int = 0
    labels: dict[str, str] = {}
    options: dict[str, str] = {}


Notice = Callable[[str, Volume], None]


def _untold(action: str, volume: Volume) -> None:
    pass


class VolumeStore:
    """The volumes of this node. Who uses one is noted by container id; a volume in use can't be removed.

    `sweep` removes a directory tree, which may take long: a daemon has it done elsewhere. What that
    does not get done is removed at the next start.
    """

    def __init__(
        self,
        root: Path,
        clock: Clock,
        rng: Random,
        *,
        sweep: Callable[[Path], None] = remove_tree,
        unmount: Callable[[Path], None] = unmount_volume,
    ) -> None:
        self._root, self._clock, self._rng, self._sweep, self._unmount = root, clock, rng, sweep, unmount
        self._volumes: dict[str, Volume] = {}
        self._users: dict[str, set[str]] = {}
        self.notice: Notice = _untold
        """Told of "create" and "destroy"."""
        root.mkdir(mode=0o701, parents=True, exist_ok=True)
        for home in sorted(root.iterdir()):
            if home.name.startswith("."):
                remove_tree(home)  # a removal that was cut short
            elif (home / "_data").is_dir():
                self._volumes[home.name] = self._load(home)

    def _load(self, home: Path) -> Volume:
        try:
            record = msgspec.json.decode((home / _RECORD).read_bytes(), type=_Record)
        except (FileNotFoundError, *UNREADABLE):
            record = _Record(home.stat().st_mtime_ns)  # data without a record is still somebody's data
        return Volume(
            name=home.name,
            created_at=record.created_at,
            labels=record.labels,
            options=record.options,
            path=home / "_data",
        )

    def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one of that name. Without a name it is anonymous."""
        if driver not in ("", "local"):
            raise NotFound(f'Error looking up volume plugin {driver}: plugin "{driver}" not found')
        if name not in self._volumes:
            check_local_options(options or {})
        kept = dict(labels or {})
        if not name:
            name = f"{self._rng.getrandbits(256):064x}"
            kept[ANONYMOUS_LABEL] = ""
        if len(name) > 255:
            raise InvalidArgument(f"create {name[:32]}...: a volume name has 255 characters at most")
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use '
                "absolute path"
            )
        if name in self._volumes:
            return self._volumes[name]
        home = self._root / name
        volume = Volume(
            name=name,
            created_at=self._clock.now(),
            labels=kept,
            options=dict(options or {}),
            path=home / "_data",
        )
        try:
            self._make(home, volume)
        except OSError:
            remove_tree(home)
            raise
        self._volumes[name] = volume
        self.notice("create", volume)
        return volume

    @staticmethod
    def _make(home: Path, volume: Volume) -> None:
        home.mkdir(mode=0o701, exist_ok=True)
        record = msgspec.json.encode(_Record(volume.created_at, volume.labels, volume.options))
        temporary = home / f"{_RECORD}.new"
        temporary.write_bytes(record)
        temporary.rename(home / _RECORD)
        volume.path.mkdir(mode=0o755, exist_ok=True)

    def get(self, name: str) -> Volume:
        """The volume, or NotFound."""
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def all(self) -> list[Volume]:
        """All volumes by name."""
        return [self._volumes[name] for name in sorted(self._volumes)]

    def users(self, name: str) -> frozenset[str]:
        """Containers that use the volume."""
        return frozenset(self._users.get(name, ()))

    def acquire(self, name: str, container: str) -> Volume:
        """Note that a container uses a volume."""
        volume = self.get(name)
        self._users.setdefault(name, set()).add(container)
        return volume

    def release(self, container: str, *, remove_anonymous: bool) -> list[str]:
        """A container is gone. Returns the names of anonymous volumes that were removed with it."""
        removed = []
        for name, users in list(self._users.items()):
            if container not in users:
                continue
            users.discard(container)
            if users:
                continue
            del self._users[name]
            self._let_go(name)
            if remove_anonymous and name in self._volumes and self._volumes[name].anonymous:
                self.remove(name)
                removed.append(name)
        return removed

    def remove(self, name: str, force: bool = False) -> None:
        """Remove a volume and its data. With `force` an unknown name is no error."""
        if name not in self._volumes:
            if force:
                return
            raise NotFound(f"get {name}: no such volume")
        users = self._users.get(name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(sorted(users))}]")
        self._let_go(name, must=True)
        doomed = self._root / f".removed-{self._rng.getrandbits(64):016x}"
        (self._root / name).rename(doomed)
        self.notice("destroy", self._volumes.pop(name))
        self._sweep(doomed)

    def _let_go(self, name: str, *, must: bool = False) -> None:
        """Unmount the file system behind a volume that nobody uses any more; its files stay."""
        volume = self._volumes.get(name)
        if volume is None or not volume.options:
            return
        try:
            self._unmount(volume.path)
        except OSError as error:
            if must:
                raise Conflict(f"remove {name}: its file system can't be unmounted: {error}") from error
            log.warning("can't unmount a volume", extra={"volume": name, "error": str(error)})


def size_of(path: Path) -> int:
    """Bytes on disk below a directory."""
    total = 0
    for entry in path.rglob("*"):
        try:
            total += entry.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total
