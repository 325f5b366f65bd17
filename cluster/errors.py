"""Errors that reach a user. Each knows its HTTP status; the API layer renders `{"message": …}`."""


class ShoalError(Exception):
    """A failure with a message for the user that says what is wrong and what to do."""

    status = 500


class InvalidArgument(ShoalError):
    """The request can't be meant as written (400)."""

    status = 400


class Unauthorized(ShoalError):
    """Credentials are missing or wrong (401)."""

    status = 401


class Forbidden(ShoalError):
    """Understood and refused (403)."""

    status = 403


class NotFound(ShoalError):
    """The named object does not exist (404)."""

    status = 404


class Conflict(ShoalError):
    """The name is taken, or the object is in use (409)."""

    status = 409


class OutOfSequence(InvalidArgument):
    """A write named an older version of the object than the stored one.

    The Engine answers this with 500 in old versions and 400 in new ones; clients look at the words.
    """

    def __init__(self, what: str = "") -> None:
        super().__init__("update out of sequence" + (f": {what}" if what else ""))


class Unavailable(ShoalError):
    """Not possible at present: no leader, no quorum, not a manager, not in a cluster (503)."""

    status = 503


class NotImplementedHere(ShoalError):
    """A part of the Engine API that Shoal does not serve (501)."""

    status = 501
