"""Python imports this first when its directory is on PYTHONPATH: managers then take snapshots often.

So a run of minutes has snapshots, compaction and followers that need a snapshot, as days have otherwise.
"""

import sys

if sys.orig_argv[1:3] == ["-m", "manager"]:
    from dataclasses import fields

    from manager.raft.timing import RaftLimits

    SMALLER = {"compact_entries": 300, "keep_entries": 40}
    _init = RaftLimits.__init__
    _init.__defaults__ = tuple(SMALLER.get(field.name, field.default) for field in fields(RaftLimits))
