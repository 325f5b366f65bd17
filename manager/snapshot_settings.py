"""The managers' snapshots as `swarm update --snapshot-interval` and `--max-snapshots` want them."""

import logging

from cluster.defaults import raft_config
from cluster.errors import ShoalError
from cluster.objects import Cluster
from cluster.seams import SECOND, Clock
from cluster.spec import RaftConfig
from manager.raft import Raft
from manager.store import Store, WatchLagged

log = logging.getLogger("shoal.manager")

RETRY = SECOND


class SnapshotSettings:
    """Lets Raft follow the cluster object. Runs on every manager; Raft begins with the defaults."""

    def __init__(self, store: Store, raft: Raft, clock: Clock) -> None:
        self._store = store
        self._raft = raft
        self._clock = clock
        self._present = _settings(None)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                _, watch = self._store.watch(Cluster)
                with watch:
                    await self._follow()
                    async for _ in watch:
                        await self._follow()
            except WatchLagged:
                continue
            except (ShoalError, OSError) as error:
                log.warning("snapshots are not as the cluster wants yet", extra={"reason": str(error)})
            await self._clock.sleep(RETRY)

    async def _follow(self) -> None:
        cluster = self._store.view().cluster()
        wanted = _settings(cluster.spec.raft) if cluster is not None else self._present
        if wanted != self._present:
            interval, keep_entries, keep_old = wanted
            await self._raft.change_snapshots(interval, keep_entries, keep_old)
            self._present = wanted
            log.info("a snapshot is taken every %d entries, and %d former ones are kept", interval, keep_old)


def _settings(config: RaftConfig | None) -> tuple[int, int, int]:
    """Entries between two snapshots, entries kept for slow followers, former snapshots kept."""
    now = raft_config(config)
    return now.snapshot_interval, now.log_entries_for_slow_followers, now.keep_old_snapshots or 0
