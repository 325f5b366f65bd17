"""Which images there are and what they are called: one small file, replaced as a whole on every change."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from cluster.codec import UNREADABLE
from cluster.errors import InvalidArgument, ShoalError
from worker.images.digest import hex_of, is_digest
from worker.images.errors import NoSuchImage
from worker.images.layers import write_durably
from worker.images.reference import Reference

_HEX = frozenset("0123456789abcdef")


class ImageRecord(msgspec.Struct, frozen=True):
    """One image: names are full ones (`docker.io/library/nginx:latest`); time in ns since the epoch."""

    id: str
    diff_ids: list[str]
    tags: list[str] = []
    digests: list[str] = []
    tagged_at: int = 0
    parent: str = ""  # the image that it was made of here, by a commit


class Catalog:
    """The records, and the file that holds them. A tag names one image at most."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, ImageRecord] = {}

    def load(self) -> None:
        """Read the file; blocks. Raises ShoalError when it is damaged."""
        try:
            records = msgspec.json.decode(self._path.read_bytes(), type=list[ImageRecord])
        except FileNotFoundError:
            return
        except UNREADABLE as error:
            raise ShoalError(
                f"the image catalogue {self._path} is damaged ({error}); move it away and load or pull anew"
            ) from error
        self._records = {record.id: record for record in records}

    def copy(self) -> dict[str, ImageRecord]:
        """The records, for `restore` after a change that could not be saved."""
        return dict(self._records)

    def restore(self, records: dict[str, ImageRecord]) -> None:
        """Go back to a copy."""
        self._records = records

    def snapshot(self) -> bytes:
        """What `save` would write now."""
        return msgspec.json.encode(list(self._records.values()))

    def save(self, snapshot: bytes) -> None:
        """Make a snapshot durable; blocks."""
        write_durably(self._path, snapshot)

    def get(self, image_id: str) -> ImageRecord | None:
        """The record of an id."""
        return self._records.get(image_id)

    def all(self) -> list[ImageRecord]:
        """Every record."""
        return list(self._records.values())

    def layers(self) -> set[str]:
        """Every layer that an image needs."""
        return {diff_id for record in self._records.values() for diff_id in record.diff_ids}

    def find(self, text: str) -> ImageRecord:
        """By name, digest, id or unique beginning of an id; raises NoSuchImage."""
        named = self._named(text)
        if named is not None:
            return named
        prefix = hex_of(text) if text.startswith("sha256:") else text
        if prefix and set(prefix) <= _HEX:
            found = [record for record in self._records.values() if hex_of(record.id).startswith(prefix)]
            if len(found) == 1:
                return found[0]
            if found:
                raise InvalidArgument(f"{text} is the beginning of {len(found)} image ids; give more of it")
        raise NoSuchImage(_familiar(text))

    def is_id(self, text: str) -> bool:
        """True when `find` would take the text for an id."""
        return self._named(text) is None

    def _named(self, text: str) -> ImageRecord | None:
        try:
            reference = Reference.parse(text)
        except InvalidArgument:
            return None
        if reference.digest:
            wanted = str(reference.with_digest(reference.digest))
            return self._first(record for record in self._records.values() if wanted in record.digests)
        return self._first(record for record in self._records.values() if str(reference) in record.tags)

    @staticmethod
    def _first(records: Iterable[ImageRecord]) -> ImageRecord | None:
        return next(iter(records), None)

    def made_of(self, image_id: str, parent: str) -> None:
        """Note of which image one was made."""
        self._set(self._records[image_id], parent=parent)

    def put(self, image_id: str, diff_ids: list[str]) -> None:
        """Add an image unless it is there."""
        self._records.setdefault(image_id, ImageRecord(id=image_id, diff_ids=diff_ids))

    def name(self, image_id: str, reference: Reference, now: int) -> None:
        """Give an image a tag, taking it from whoever had it, or a digest."""
        text = str(reference)
        if reference.digest:
            record = self._records[image_id]
            if text not in record.digests:
                self._set(record, digests=[*record.digests, text])
            return
        for record in self.all():
            if text in record.tags and record.id != image_id:
                self._set(record, tags=[tag for tag in record.tags if tag != text])
        record = self._records[image_id]
        tags = record.tags if text in record.tags else [*record.tags, text]
        self._set(record, tags=tags, tagged_at=now)

    def unname(self, image_id: str, text: str) -> None:
        """Take a tag or digest from an image."""
        record = self._records[image_id]
        self._set(
            record,
            tags=[tag for tag in record.tags if tag != text],
            digests=[digest for digest in record.digests if digest != text],
        )

    def drop(self, image_id: str) -> None:
        """Forget an image."""
        del self._records[image_id]

    def _set(self, record: ImageRecord, **changes: object) -> None:
        self._records[record.id] = msgspec.structs.replace(record, **changes)


def _familiar(text: str) -> str:
    if is_digest(text):
        return text
    try:
        return Reference.parse(text).familiar
    except InvalidArgument:
        return text
