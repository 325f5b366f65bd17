"""A real node's answers against the Engine API's description, and against a real dockerd's."""

from collections import defaultdict

import pytest

from tests.compatibility.shapes import Seen, recorded, undescribed
from tests.support.cluster import Cluster

pytestmark = pytest.mark.playground
OF_THIS_CLUSTER = {
    "$.CDISpecDirs[] is missing": "no devices of that kind",
    "$.GenericResources is ['arr'], with dockerd null": "the hosts have some",
    "$.RegistryConfig.IndexConfigs.*.Mirrors[] is missing": "no mirrors",
    "$.RegistryConfig.Mirrors[] is missing": "no mirrors",
    "$.RuncCommit.Expected is missing": "dockerd was asked with version 1.44, which had it",
    "$.Swarm.RemoteManagers is ['arr'], with dockerd null": "dockerd was in no swarm",
    "$.Containers[] is missing": "a host without containers",
    "$.Images[].RepoDigests[] is missing": "an image that was not pulled",
    "$.Labels is ['obj'], with dockerd null": "a volume with labels",
    "$.Spec.TaskTemplate.ContainerSpec.Command is missing": "the image's own",
    "$[].Spec.TaskTemplate.ContainerSpec.Command is missing": "the image's own",
    "$[].Spec.ContainerSpec.Command is missing": "the image's own",
}
"""What differs as the two were not asked about the same."""


def test_all_that_can_be_asked(cluster: Cluster) -> None:
    cluster.docker("network", "create", "--driver", "overlay", "--label", "a=b", "answers")
    cluster.docker("secret", "create", "answers", "-", stdin="x")
    cluster.docker("config", "create", "answers", "-", stdin="x")
    cluster.docker("volume", "prune", "--all", "--force")  # other tests' have no labels
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
            unlike = [what for what in shape.unlike_dockerd(answer) if what not in OF_THIS_CLUSTER]
            troubles += [f"{answer}: {what}" for what in unlike]
    cluster.docker("volume", "rm", "--force", "answers")
    assert troubles == [], "\n".join(troubles)
