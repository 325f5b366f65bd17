"""Import pysyncobj once, before anything else does, and undo what that does to the process.

Its `win_inet_pton` replaces `socket.inet_ntop` on every system (one line of it has lost its indentation) with
a function that only works on Windows.
"""

import socket

_inet_ntop = socket.inet_ntop
import pysyncobj.win_inet_pton  # noqa: E402, F401

socket.inet_ntop = _inet_ntop
