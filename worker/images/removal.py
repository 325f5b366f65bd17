"""What removing an image means: untagging, deleting, and what stands against it (moby, image_delete.go)."""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import Conflict
from worker.images.catalog import Catalog, ImageRecord
from worker.images.digest import short
from worker.images.model import ImageUser
from worker.images.reference import Reference


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """Names to take from an image, and whether to delete it then."""

    image_id: str
    names: tuple[str, ...]
    delete: bool


def plan_everything(record: ImageRecord) -> RemovalPlan:
    """Remove an image with all its names."""
    return RemovalPlan(record.id, (*record.tags, *record.digests), delete=True)


def plan_removal(catalog: Catalog, text: str, users: Sequence[ImageUser], force: bool) -> RemovalPlan:
    """Decide what `docker rmi TEXT` does. Raises NoSuchImage and Conflict."""
    record = catalog.find(text)
    mine = [user for user in users if user.image_id == record.id]
    if catalog.is_id(text):
        return _by_id(record, mine, force)
    return _by_name(record, Reference.parse(text), mine, force)


def _by_id(record: ImageRecord, users: Sequence[ImageUser], force: bool) -> RemovalPlan:
    _refuse_running(record, users)
    repositories = {Reference.parse_name(name).name for name in record.tags}
    if len(repositories) > 1 and not force:
        raise Conflict(
            f"conflict: unable to delete {short(record.id)} (must be forced) - "
            "image is referenced in multiple repositories"
        )
    if users and not force:
        raise Conflict(
            f"conflict: unable to delete {short(record.id)} (must be forced) - "
            f"image is being used by stopped container {users[0].container_id[:12]}"
        )
    # A stopped container still needs the layers; the image stays without a name until it is gone.
    return RemovalPlan(record.id, (*record.tags, *record.digests), delete=not users)


def _by_name(
    record: ImageRecord, reference: Reference, users: Sequence[ImageUser], force: bool
) -> RemovalPlan:
    named = str(reference.with_digest(reference.digest) if reference.digest else reference)
    tags = [tag for tag in record.tags if tag != named]
    same_repository = any(Reference.parse_name(tag).name == reference.name for tag in tags)
    # The digests of a repository go with its last tag, since they came with one.
    digests = (
        []
        if same_repository
        else [
            digest
            for digest in record.digests
            if digest != named
            and Reference.parse_name(digest).name == reference.name
            and not reference.digest
        ]
    )
    names = tuple(dict.fromkeys((named, *digests)))
    left = [name for name in (*tags, *record.digests) if name not in names]
    if left:
        return RemovalPlan(record.id, names, delete=False)
    if users and not force:
        raise Conflict(
            f'conflict: unable to remove repository reference "{reference.familiar}" (must force) - '
            f"container {users[0].container_id[:12]} is using its referenced image {short(record.id)}"
        )
    return RemovalPlan(record.id, names, delete=not users)


def _refuse_running(record: ImageRecord, users: Sequence[ImageUser]) -> None:
    for user in users:
        if user.running:
            raise Conflict(
                f"conflict: unable to delete {short(record.id)} (cannot be forced) - "
                f"image is being used by running container {user.container_id[:12]}"
            )
