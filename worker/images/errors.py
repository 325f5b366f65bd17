"""What can go wrong with an image. All are ShoalErrors, so the API can render them as they are."""

from cluster.errors import InvalidArgument, NotFound, ShoalError, Unauthorized


class InvalidImage(InvalidArgument):
    """Image content that breaks the format, its limits or the rules of safe unpacking (400)."""


class DigestMismatch(ShoalError):
    """Content that is not what its digest promised: a damaged or dishonest source (500)."""

    def __init__(self, what: str, expected: str, actual: str) -> None:
        super().__init__(f"{what}: content does not match its digest (expected {expected}, got {actual})")
        self.expected = expected
        self.actual = actual


class NoSuchImage(NotFound):
    """The image is not in this store (404)."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"No such image: {reference}")


class ManifestUnknown(NotFound):
    """The registry has no such tag or digest (404)."""


class AccessDenied(NotFound):
    """The registry refuses, or hides, the repository (404, as dockerd answers it)."""


class RegistryUnauthorized(Unauthorized):
    """The registry refuses the credentials (401)."""


class RegistryError(ShoalError):
    """The registry answered with something that is not the distribution API, or kept failing (500)."""


class TransportError(RegistryError):
    """The registry could not be reached, or the connection broke: worth another try."""


class TLSFailure(TransportError):
    """No TLS session: the server speaks plain HTTP, or its certificate is not trusted."""


class UnknownHost(TransportError):
    """No name server knows the registry: asking again at once would not help."""
