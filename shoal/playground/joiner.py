"""Run a command as a member of a cgroup: `python -m shoal.playground.joiner CGROUP COMMAND…`."""

import os
import sys

from shoal.playground import cgroups

if __name__ == "__main__":
    cgroups.join(sys.argv[1], leaf=True)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the caller's command, as the caller
