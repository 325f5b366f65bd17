"""A real node's answers against the Engine API's description, and against a real dockerd's."""

from collections import defaultdict

from tests.compatibility.shapes import Seen, recorded, undescribed
from tests.support.cluster import Cluster


def test_all_that_can_be_asked(cluster: Cluster) -> None:
    cluster.docker("network", "create", "--driver", "overlay", "--label", "a=b", "answers")
    cluster.docker("secret", "create", "answers", "-", stdin="x")
    cluster.docker("config", "create", "answers", "-", stdin="x")
    cluster.docker("volume", "create", "--label", "a=b", "answers")
    (task,) = cluster.run("answers", "--network", "answers", "--publish", "8099:80", "--secret", "answers")
    seen: defaultdict[str, Seen] = defaultdict(Seen)
    troubles = []
    for operation, path in (
        ("GET /info", ""),
        ("GET /version", ""),
        ("GET /system/df", ""),
        ("GET /volumes", ""),
        ("GET /volumes/{name}", "answers"),
        ("GET /volumes/{name}", "nothing"),
        ("GET /networks", ""),
        ("GET /networks/{id}", "answers"),
        ("GET /networks/{id}", "bridge"),
        ("GET /networks/{id}", "nothing"),
        ("GET /nodes", ""),
        ("GET /nodes/{id}", "host1"),
        ("GET /swarm", ""),
        ("GET /swarm/unlockkey", ""),
        ("GET /services", ""),
        ("GET /services/{id}", "answers"),
        ("GET /tasks", ""),
        ("GET /tasks/{id}", task["ID"]),
        ("GET /secrets", ""),
        ("GET /secrets/{id}", "answers"),
        ("GET /configs", ""),
        ("GET /configs/{id}", "answers"),
    ):
        method, template = operation.split()
        where = template.partition("{")[0] + path if path else template
        status, answer = cluster.curl("host1", method, where)
        troubles += [f"{operation} {status}: {what}" for what in undescribed(operation, status, answer)]
        seen[f"{operation} {status}"].add(answer)
    for answer, shape in seen.items():
        if answer in recorded():
            troubles += [f"{answer}: {what}" for what in shape.unlike_dockerd(answer)]
    cluster.docker("volume", "rm", "--force", "answers")
    assert troubles == []
