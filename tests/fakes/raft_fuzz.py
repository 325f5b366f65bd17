"""Random failures over a World, and the promises that must hold whatever happens.

One leader per term; the same entry at each index everywhere; every acknowledged entry exactly once on every
node in the end; nothing reported as definitely not applied is applied.
"""

from collections import Counter

from cluster.seams import SECOND
from manager.raft.errors import NotLeader
from manager.raft.timing import RaftLimits
from tests.fakes.raft_world import SimNode, World


class Fuzz:
    """One run: `steps` of trouble, then calm until all nodes agree."""

    def __init__(self, seed: int, ids: str = "ABC", steps: int = 3000) -> None:
        self.world = World(ids, seed, RaftLimits(keep_entries=seed % 3 * 5))
        self.random = self.world.random
        self.steps = steps
        self.leaders: dict[int, str] = {}
        self.outcomes: dict[bytes, list[object]] = {}
        self.down: dict[str, float] = {}
        self.cut: dict[frozenset[str], float] = {}
        self.stalled: dict[tuple[str, str], float] = {}
        self.count = Counter()

    @property
    def time(self) -> float:
        return self.world.clock.time / SECOND

    def run(self) -> list[str]:
        """Returns what was violated."""
        world = self.world
        for _ in range(self.steps):
            self.trouble()
            self.turn()
        self.stalled.clear()
        self.cut.clear()
        for node_id in self.down:
            self.down[node_id] = 0
        for number in range(3000):
            self.turn()
            if number > 600 and number % 50 == 0:
                judged = self.judged()
                states = {tuple(world[node_id].machine.entries) for node_id in judged}
                if all(world[node_id].node for node_id in judged) and len(states) == 1:
                    break
        return world.violations + self.judge()

    def judged(self) -> list[str]:
        """The nodes that must agree in the end."""
        return list(self.world.nodes)

    def trouble(self) -> None:
        world, chance = self.world, self.random.random()
        ids = list(world.nodes)
        if chance < 0.001:
            self.duel(self.random.sample(ids, 3))
        elif chance < 0.002:
            self.last_words(ids)
        elif chance < 0.004:
            pair = frozenset(self.random.sample(ids, 2))
            self.cut[pair] = self.time + self.random.choice([0.01, 0.3, 1, 3]) * self.random.random()
            world.disconnect(*sorted(pair))
        elif chance < 0.006:
            node_id, until = self.random.choice(ids), self.time + self.random.uniform(0.2, 4)
            for other in ids:
                if other != node_id:
                    self.cut[frozenset((node_id, other))] = until
                    world.disconnect(node_id, other)
            self.count["isolated"] += 1
        elif chance < 0.010:
            first, second = self.random.sample(ids, 2)
            self.stalled[first, second] = self.time + self.random.uniform(0.1, 3)
        elif chance < 0.0125:
            node_id = self.random.choice(ids)
            if world[node_id].node and (len(self.down) < len(ids) - 1 or self.random.random() < 0.2):
                self.crash(node_id)
        elif chance < 0.013:
            for node_id in ids:
                self.crash(node_id)
        elif chance < 0.022:
            node = world[self.random.choice(ids)].node
            if node is not None:
                world.hold_writers = self.random.random() < 0.5
                node.compaction_wanted()
        elif chance < 0.03 and world.writers:
            world.writers.pop(0)()
        elif chance < 0.11:
            leaders = [node for node in world.nodes.values() if node.leads]
            if leaders:
                entry = b"e%d" % len(self.outcomes)
                self.outcomes[entry] = self.random.choice(leaders).propose(entry)

    def duel(self, ids: list[str]) -> None:
        """All have lost power, two stand for the same term, and who votes for one loses power again."""
        world = self.world
        for node_id in world.nodes:
            self.crash(node_id)
        for node_id in ids:
            self.start(node_id)
        voter, *rivals = ids
        for rival in rivals:
            self.stand(rival)
        for rival in rivals:
            self.meet(rival, voter)
            world.step(voter)
            self.meet(voter, rival)
        for rival in rivals:
            world.step(rival)  # Whoever has the voter's word asks for its vote.
        asked = {rival: list(world.links[rival, voter]) for rival in rivals}
        for rival in rivals:
            world.links[rival, voter].extend(asked[rival] if rival != rivals[0] else [])  # lost in the crash
            self.meet(rival, voter)
            world.step(voter)
            self.meet(voter, rival)
            self.crash(voter)
            self.start(voter)
            self.note_leaders()

    def start(self, node_id: str) -> None:
        """Power is back, and the others are reached."""
        self.down.pop(node_id, None)
        self.world[node_id].start()
        for other, sim in self.world.nodes.items():
            if other != node_id and sim.node is not None:
                self.world.connect(node_id, other)

    def stand(self, node_id: str) -> None:
        """Ask who would vote for it."""
        node = self.world[node_id].node
        if node is not None:
            node.elect_at_once()
            self.world.step(node_id)

    def meet(self, source: str, target: str) -> None:
        """What the one has sent to the other arrives."""
        if self.world[target].node is not None:
            self.world.deliver(source, target)

    def last_words(self, ids: list[str]) -> None:
        """Followers lose power as soon as they have answered; the leader, after it has believed them, too."""
        leaders = [node_id for node_id in ids if self.world[node_id].leads]
        if not leaders:
            return
        leader = leaders[0]
        entry = b"e%d" % len(self.outcomes)
        self.outcomes[entry] = self.world[leader].propose(entry)
        self.world.step(leader)
        for follower in ids:
            if follower != leader and self.world[follower].node is not None:
                self.world.deliver(leader, follower)
                self.speak(follower)
                self.crash(follower)
        self.world.step(leader)
        self.crash(leader)

    def speak(self, node_id: str) -> None:
        """What it has sent arrives."""
        for source, target in list(self.world.links):
            if source == node_id and target in self.world.nodes:
                self.meet(source, target)

    def crash(self, node_id: str) -> None:
        if self.world[node_id].node is not None:
            self.world.crash(node_id)
            self.world.writers.clear()
            self.down[node_id] = self.time + self.random.uniform(0.1, 2.5)
            self.count["crashes"] += 1

    def turn(self) -> None:
        world = self.world
        world.clock.time += int(self.random.uniform(0.0005, 0.012) * SECOND)
        for node_id, until in list(self.down.items()):
            if until < self.time:
                del self.down[node_id]
                world[node_id].start()
        ids = list(world.nodes)
        for a in ids:
            for b in ids:
                pair = frozenset((a, b))
                both = world[a].node is not None and world[b].node is not None
                if a < b and both and pair not in world.connected and self.cut.get(pair, 0) < self.time:
                    world.connect(a, b)
        self.random.shuffle(ids)
        for node_id in ids:
            if self.random.random() < 0.7:
                world.step(node_id)
        links = [
            link
            for link, frames in world.links.items()
            if frames and self.stalled.get(link, 0) < self.time and world[link[1]].node is not None
        ]
        self.random.shuffle(links)
        for source, target in links:
            world.deliver(source, target, self.random.choice([1, 1, 2, 8]))
        self.note_leaders()

    def note_leaders(self) -> None:
        """One leader a term."""
        for node_id, node in self.world.nodes.items():
            if node.leads and node.node is not None:
                first = self.leaders.setdefault(node.node.raftCurrentTerm, node_id)
                if first != node_id:
                    self.world.violations.append(f"{first} and {node_id} lead in one term")

    def judge(self) -> list[str]:
        """The promises about the end."""
        problems = [reason for node in self.world.nodes.values() for reason in node.fatal]
        acknowledged = [
            entry for entry, outcome in self.outcomes.items() if outcome and isinstance(outcome[0], int)
        ]
        refused = [
            entry for entry, outcome in self.outcomes.items() if outcome and isinstance(outcome[0], NotLeader)
        ]
        self.count["acknowledged"] = len(acknowledged)
        states = {node_id: self.world[node_id].machine.entries for node_id in self.judged()}
        if len({tuple(entries) for entries in states.values()}) != 1:
            problems.append(f"no agreement in the end: {[len(entries) for entries in states.values()]}")
        for node_id, entries in states.items():
            times = Counter(entries)
            problems += [
                f"{entry!r} was acknowledged and is lost on {node_id}"
                for entry in acknowledged
                if not times[entry]
            ]
            problems += [
                f"{entry!r} is there {number} times" for entry, number in times.items() if number > 1
            ]
            problems += [f"{entry!r} was refused and applied" for entry in refused if times[entry]]
        return problems


class MemberFuzz(Fuzz):
    """The same trouble while members join and are removed; a removed node is gone for good."""

    JOINERS = "DEFGHIJK"
    fewest = 3
    churn = 0.01

    def __init__(self, seed: int, steps: int = 4000) -> None:
        super().__init__(seed, "ABC", steps)
        self.spare = list(self.JOINERS)
        self.gone: set[str] = set()
        self.wiped: set[str] = set()

    def judged(self) -> list[str]:
        """The members as the newest leader has them committed."""
        leaders = [node for node in self.world.nodes.values() if node.leads and node.node is not None]
        if not leaders:
            return list(self.world.nodes)
        newest = max(leaders, key=lambda node: node.node.raftCurrentTerm)
        return sorted(newest.node.members())

    def trouble(self) -> None:
        super().trouble()
        chance = self.random.random()
        leaders = [node for node in self.world.nodes.values() if node.leads and node.node is not None]
        if chance > self.churn or not leaders:
            return
        leader = self.random.choice(leaders)
        members = leader.node.members()
        waiting = [
            node_id for node_id in self.world.nodes if node_id not in members and node_id not in self.gone
        ]
        if self.random.random() < 0.5 and (self.spare or waiting):
            joiner = self.random.choice(waiting) if waiting else self.spare.pop()
            if joiner not in self.world.nodes:
                self.world.nodes[joiner] = SimNode(self.world, joiner)
                self.world[joiner].start(dict(members))
            elif joiner in self.wiped:
                self.wiped.discard(joiner)
                self.world[joiner].wipe(dict(members))
                self.down[joiner] = 0
            leader.node.add_member(joiner, joiner, lambda result, error: self.changed("added", joiner, error))
        elif self.random.random() < 0.3:
            self.move(leader, self.random.choice(list(members)))
        elif len(members) > self.fewest:
            leaving = self.random.choice([node_id for node_id in members if node_id != leader.node_id])
            leader.node.remove_member(leaving, lambda result, error: self.changed("removed", leaving, error))

    def move(self, leader: SimNode, node_id: str) -> None:
        """It loses power, comes up at another address, and the leader is told."""
        if node_id in self.gone or node_id not in self.world.nodes or node_id == leader.node_id:
            return
        self.count["moves"] += 1
        address = f"{node_id}{self.count['moves']}"
        self.crash(node_id)
        self.world[node_id].address = address
        leader.node.add_member(node_id, address, lambda result, error: self.changed("moved", node_id, error))

    def changed(self, kind: str, node_id: str, error: Exception | None) -> None:
        if error is not None:
            self.count[f"not {kind}"] += 1
            return
        self.count[kind] += 1
        if kind == "removed" and node_id in self.world.nodes:
            self.crash(node_id)
            self.down[node_id] = float("inf")
            self.left(node_id)

    def left(self, node_id: str) -> None:
        """What becomes of a node that was removed."""
        self.gone.add(node_id)

    def turn(self) -> None:
        for node_id in self.gone & set(self.world.nodes):
            self.down.pop(node_id, None)
            del self.world.nodes[node_id]
        super().turn()


class ComebackFuzz(MemberFuzz):
    """The same, while those that were removed come back under their ids, with empty disks: down to one member
    and up again, so that a former member's log has times when it was alone."""

    JOINERS = "D"
    fewest = 1
    churn = 0.04

    def left(self, node_id: str) -> None:
        self.wiped.add(node_id)

    def judged(self) -> list[str]:
        return [node_id for node_id in super().judged() if node_id not in self.wiped]
