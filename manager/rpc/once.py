"""HTTP requests that are sent once."""

import aiohttp


def once(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """Keep the session from sending a request again by itself.

    aiohttp does that with a GET, PUT or DELETE whose connection breaks before the answer. A DELETE that had
    been carried out would then find nothing, or what has taken the name since.
    """
    session._retry_connection = False
    return session
