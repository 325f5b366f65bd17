"""Image references: `nginx` means `docker.io/library/nginx:latest`.

Grammar and normalisation follow github.com/distribution/reference, which docker uses.
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from cluster.errors import InvalidArgument
from worker.images.digest import is_digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_LEGACY_DOMAIN = "index.docker.io"
_MAX_NAME = 255

_DOMAIN_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_PATH_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised reference: registry domain, repository path, and a tag, a digest, or both."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what a user wrote; without tag and digest the tag is `latest`. Raises InvalidArgument."""
        reference = cls.parse_name(text)
        return reference if reference.tag or reference.digest else replace(reference, tag=DEFAULT_TAG)

    @classmethod
    def parse_name(cls, text: str) -> Self:
        """Like `parse`, but leaves a missing tag empty."""
        if _IDENTIFIER.match(text):
            raise _invalid(text, "64 hexadecimal digits are an image id, not a name")
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise _invalid(text, "what follows @ is not a digest such as sha256:<64 hexadecimal digits>")
        head, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:
            head, tag = rest, ""
        elif not _TAG.match(tag):
            raise _invalid(text, f"{tag!r} is not a valid tag")
        domain, path = _split_domain(head)
        if not _DOMAIN.match(domain):
            raise _invalid(text, f"{domain!r} is not a valid registry host")
        if path != path.lower():
            raise _invalid(text, "repository name must be lowercase")
        if not _PATH.match(path):
            raise _invalid(text, f"{path!r} is not a valid repository name")
        if len(domain) + 1 + len(path) > _MAX_NAME:
            raise _invalid(text, f"repository name is longer than {_MAX_NAME} characters")
        return cls(domain=domain, path=path, tag=tag, digest=digest)

    @property
    def name(self) -> str:
        """The full repository name, `docker.io/library/nginx`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as users write it, `nginx`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        official = self.path.removeprefix(_OFFICIAL)
        return official if official != self.path and "/" not in official else self.path

    @property
    def familiar(self) -> str:
        """The whole reference as users write it, `nginx:latest`."""
        return self.familiar_name + self._suffix

    @property
    def selector(self) -> str:
        """What to ask the registry for: the digest when there is one, else the tag."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> "Reference":
        """The same repository at a digest, without tag."""
        return Reference(self.domain, self.path, digest=digest)

    def with_tag(self, tag: str) -> "Reference":
        """The same repository at a tag, without digest."""
        return Reference(self.domain, self.path, tag=tag)

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix


def familiar(full_name: str) -> str:
    """The familiar form of a normalised name."""
    return Reference.parse_name(full_name).familiar


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = "." in first or ":" in first or first == "localhost" or first.lower() != first
    domain, path = (first, rest) if slash and is_domain else (DEFAULT_DOMAIN, name)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and path and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _invalid(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"invalid reference format: {text[:300]!r}: {why}")
