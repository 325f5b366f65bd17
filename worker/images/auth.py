"""Registry credentials and challenges (RFC 9110 section 11, distribution's token specification)."""

import base64
import re
from dataclasses import dataclass, field

import msgspec

from cluster.errors import InvalidArgument

_MAX_HEADER = 64 << 10
# Each matches at one place without trying twice, so that a hostile header takes no more than linear time.
# (One expression with possessive groups would do, but the re of Python 3.11.0 to 3.11.4 gets those wrong.)
_WORD = re.compile(r"([A-Za-z_-]+)(?:\s*(=)\s*)?")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE = re.compile(r'[^",\s]+')


class _AuthConfig(msgspec.Struct):
    username: str | None = None
    password: str | None = None
    auth: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Credentials for one registry: a name and password, or a token. Never shown by repr."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @classmethod
    def decode(cls, header: str) -> "RegistryAuth | None":
        """Parse an X-Registry-Auth header (base64url JSON AuthConfig); None when it carries no credentials.

        Raises InvalidArgument.
        """
        if not header.strip():
            return None
        if len(header) > _MAX_HEADER:
            raise InvalidArgument("X-Registry-Auth is too long")
        try:
            document = _decoded(header.strip())
            parsed = msgspec.json.decode(document or b"{}", type=_AuthConfig | None) or _AuthConfig()
            username, password = parsed.username or "", parsed.password or ""
            if parsed.auth and not username:
                username, _, password = _decoded(parsed.auth).decode().partition(":")
        except (ValueError, msgspec.MsgspecError) as error:
            raise InvalidArgument(f"X-Registry-Auth is not base64url-encoded JSON: {error}") from error
        auth = cls(
            username=username,
            password=password,
            identity_token=parsed.identitytoken or "",
            registry_token=parsed.registrytoken or "",
        )
        return auth if auth != cls() else None

    def basic(self) -> str:
        """The value of a Basic Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a WWW-Authenticate header: scheme in lower case, parameters by lower-case name."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header, in order; what can't be parsed is left out."""
    header = header[:_MAX_HEADER]
    found: list[Challenge] = []
    position = 0
    while word := _WORD.search(header, position):
        position = word.end()
        if not word[2]:
            found.append(Challenge(word[1].lower(), {}))
            continue
        value = _QUOTED.match(header, position) or _BARE.match(header, position)
        if value is None:
            if header[position : position + 1] == '"':
                break  # a string without an end
            continue
        position = value.end()
        if found:
            text = re.sub(r"\\(.)", r"\1", value[1], flags=re.DOTALL) if value.re is _QUOTED else value[0]
            found[-1].parameters[word[1].lower()] = text
    return [challenge for challenge in found if challenge.parameters]


def _decoded(text: str) -> bytes:
    """Base64 in either alphabet, with or without padding; raises ValueError."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
