"""Services of Compose files as specifications."""

from pathlib import Path

import pytest

from cluster.errors import InvalidArgument
from shoal.cli.client import Json
from shoal.stack.node import ComposeError
from tests.unit.stack.compose import container, service, stack

SECOND = 10**9


def test_names_and_labels_are_dockers() -> None:
    spec = service("labels: [a=b]\ndeploy: {labels: {c: 5, d: true}}")
    assert spec["Name"] == "s_web"
    assert spec["Labels"] == {
        "c": "5", "d": "true", "com.docker.stack.namespace": "s", "com.docker.stack.image": "i",
    }  # fmt: skip
    template = spec["TaskTemplate"]
    assert template["ContainerSpec"]["Labels"] == {"a": "b", "com.docker.stack.namespace": "s"}
    assert template["Networks"] == [{"Target": "s_default", "Aliases": ["web"]}]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("command: sh -c 'a b'", {"Args": ["sh", "-c", "a b"]}),
        ("entrypoint: [a, 'b c', 3]", {"Command": ["a", "b c", "3"]}),
        ("environment: {B: 2, A: null, C: x}", {"Env": ["A", "B=2", "C=x"]}),
        ("extra_hosts: ['a:1.2.3.4', 'b=::1']", {"Hosts": ["1.2.3.4 a", "::1 b"]}),
        ("cap_add: [net_admin, CAP_CHOWN]", {"CapabilityAdd": ["CAP_CHOWN", "CAP_NET_ADMIN"]}),
        ("cap_drop: [ALL]\ncap_add: [kill]", {"CapabilityAdd": ["CAP_KILL"], "CapabilityDrop": ["ALL"]}),
        ("healthcheck: {disable: true}", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "healthcheck: {test: [CMD, x], interval: 1m30s, retries: 2}",
            {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 90 * SECOND, "Retries": 2}},
        ),
        ("ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}",
         {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}, {"Name": "nproc", "Soft": 5, "Hard": 5}]}),
        ("dns: 1.1.1.1\ndns_search: [a]", {"DNSConfig": {"Nameservers": ["1.1.1.1"], "Search": ["a"]}}),
        ("stop_grace_period: 1s", {"StopGracePeriod": SECOND}),
        ("sysctls: [net.x=1]", {"Sysctls": {"net.x": "1"}}),
        ("oom_score_adj: -5", {"OomScoreAdj": -5}),
        ("init: false", {"Init": False}),
        ("credential_spec: {config: c}", {"Privileges": {"CredentialSpec": {"Config": "c"}}}),
    ],
)  # fmt: skip
def test_container_fields(fields: str, expected: Json) -> None:
    found = container(fields)
    assert {key: found.get(key) for key in expected} == expected


_VOLUMES = """volumes:
  data: {labels: {a: b}, driver: d, driver_opts: {o: 1}}
  named: {name: real}
  other: {external: true}
"""


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("/anon", {"Type": "volume", "Target": "/anon"}),
        ("../x:/x:ro,rslave", {
            "Type": "bind", "Source": "/x", "Target": "/x", "ReadOnly": True,
            "BindOptions": {"Propagation": "rslave"},
        }),
        ("other:/o", {"Type": "volume", "Source": "other", "Target": "/o"}),
        ("named:/n:nocopy", {
            "Type": "volume", "Source": "real", "Target": "/n",
            "VolumeOptions": {"NoCopy": True, "Labels": {"com.docker.stack.namespace": "s"}},
        }),
        ("{source: data, target: /d, volume: {subpath: p}}", {
            "Type": "volume", "Source": "s_data", "Target": "/d",
            "VolumeOptions": {
                "Subpath": "p", "Labels": {"a": "b", "com.docker.stack.namespace": "s"},
                "DriverConfig": {"Name": "d", "Options": {"o": "1"}},
            },
        }),
        ("{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}", {
            "Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700},
        }),
        ("{type: bind, source: ., target: /b, bind: {create_host_path: true}}", {
            "Type": "bind", "Source": "/srv", "Target": "/b", "BindOptions": {"CreateMountpoint": True},
        }),
    ],
)  # fmt: skip
def test_mounts(entry: str, expected: Json) -> None:
    assert container(f"volumes:\n  - {entry}", _VOLUMES)["Mounts"] == [expected]


def test_ports() -> None:
    spec = service(
        "ports: ['8080:80', '53', {target: 1, published: 2, mode: host, protocol: udp}, '8080:80']"
    )
    assert spec["EndpointSpec"]["Ports"] == [
        {"Protocol": "tcp", "TargetPort": 53, "PublishMode": "ingress"},
        {"Protocol": "udp", "TargetPort": 1, "PublishMode": "host", "PublishedPort": 2},
        {"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress", "PublishedPort": 8080},
    ]


def test_ports_at_an_address_are_told_by_labels() -> None:
    spec = service(
        "ports: ['10.0.0.5:80-81:80-81', {target: 1, published: 2, host_ip: 10.0.0.6}, '0.0.0.0:5:5', "
        "'[2001:db8::1]:6:6', {target: 7, published: 7, host_ip: '::'}]"
    )
    assert [port["PublishedPort"] for port in spec["EndpointSpec"]["Ports"]] == [2, 5, 6, 7, 80, 81]
    labels = {key: value for key, value in spec["Labels"].items() if key.startswith("shoal.")}
    assert labels == {
        "shoal.publish.80/tcp": "10.0.0.5", "shoal.publish.81/tcp": "10.0.0.5",
        "shoal.publish.2/tcp": "10.0.0.6",
        "shoal.publish.6/tcp": "2001:db8::1", "shoal.publish.7/tcp": "::/0",
    }  # fmt: skip


def test_the_deploy_section() -> None:
    spec = service(
        """
deploy:
  mode: replicated-job
  replicas: 3
  endpoint_mode: dnsrr
  update_config: {delay: 2s, order: start-first, max_failure_ratio: 0.5}
  rollback_config: {parallelism: 0, failure_action: continue}
  restart_policy: {condition: on-failure, max_attempts: 3}
  placement:
    constraints: [node.role==worker]
    preferences: [{spread: node.labels.zone}]
    max_replicas_per_node: 1
  resources:
    limits: {cpus: '0.50', memory: 50M, pids: 7}
    reservations:
      memory: 20M
      generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]
"""
    )
    assert spec["Mode"] == {"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3}}
    assert spec["EndpointSpec"]["Mode"] == "dnsrr"
    assert spec["UpdateConfig"] == {
        "Parallelism": 1, "Delay": 2 * SECOND, "Order": "start-first", "MaxFailureRatio": 0.5,
    }  # fmt: skip
    assert spec["RollbackConfig"] == {"Parallelism": 0, "FailureAction": "continue"}
    template = spec["TaskTemplate"]
    assert template["RestartPolicy"] == {"Condition": "on-failure", "MaxAttempts": 3}
    assert template["Placement"] == {
        "Constraints": ["node.role==worker"],
        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
        "MaxReplicas": 1,
    }
    assert template["Resources"] == {
        "Limits": {"NanoCPUs": 5 * 10**8, "MemoryBytes": 50 << 20, "Pids": 7},
        "Reservations": {
            "MemoryBytes": 20 << 20,
            "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}],
        },
    }


def test_networks() -> None:
    found = stack(
        """
services:
  a: {image: i, networks: {front: {aliases: [x]}, out: null}}
networks:
  front: {internal: true, ipam: {config: [{subnet: 10.1.0.0/24}]}, driver_opts: {k: 1}}
  out: {external: true, name: real}
  unused: {}
"""
    )
    assert list(found.networks) == ["s_front"]
    assert found.networks["s_front"]["IPAM"] == {"Driver": "default", "Config": [{"Subnet": "10.1.0.0/24"}]}
    assert found.networks["s_front"]["Internal"]
    assert list(found.outside_networks) == ["real"]
    attachments = found.services[0].spec["TaskTemplate"]["Networks"]
    assert attachments == [
        {"Target": "real", "Aliases": ["a"]}, {"Target": "s_front", "Aliases": ["x", "a"]},
    ]  # fmt: skip


def test_secrets_and_configs(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(b"\x00\xff")
    rest = """
secrets:
  one: {file: ./s.txt}
  two: {external: true, name: real}
configs:
  c: {content: hello, template_driver: golang}
"""
    found = container(
        "secrets: [one, {source: two, target: t, uid: '5', mode: 0400}]\nconfigs: [c]", rest, tmp_path
    )
    assert found["Secrets"] == [
        {"File": {"Name": "t", "UID": "5", "GID": "0", "Mode": 0o400}, "SecretID": "", "SecretName": "real"},
        {
            "File": {"Name": "one", "UID": "0", "GID": "0", "Mode": 0o444},
            "SecretID": "",
            "SecretName": "s_one",
        },
    ]
    text = f"services: {{a: {{image: i}}}}\n{rest}"
    loaded = stack(text, folder=tmp_path)
    assert loaded.secrets[0].spec is not None
    assert loaded.secrets[0].spec["Data"] == "AP8="
    assert loaded.secrets[1].spec is None
    assert loaded.configs[0].spec is not None
    assert loaded.configs[0].spec["Templating"] == {"Name": "golang"}


def test_start_order_and_labels() -> None:
    found = stack(
        """
services:
  web:
    image: i
    depends_on: {db: {condition: service_healthy}, init: {condition: service_completed_successfully}}
  db: {image: i}
  init: {image: i, depends_on: [db]}
"""
    )
    assert [s.name for s in found.services] == ["db", "init", "web"]
    label = found.services[2].spec["Labels"]["shoal.stack.depends-on"]
    assert label == "db:service_healthy,init:service_completed_successfully"


def test_what_a_cluster_has_not_is_told() -> None:
    (warning,) = stack("services: {a: {image: i, build: ., container_name: x}}").warnings
    assert "a.yml:1: services.a: ignored in a cluster: build, container_name" in warning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: {a: {}}", "a.yml:1: services.a: image is missing"),
        ("services: {}", "there are no services"),
        ("", "there are no services"),
        ("servces: {}", "Additional property servces is not allowed; did you mean 'services'?"),
        ("services:\n  a:\n    image: i\n    prots: []", "a.yml:4: services.a.prots: Additional property"),
        (
            "services:\n  a:\n    image: 5",
            "a.yml:3: services.a.image: this is a number, but it must be a text",
        ),
        ("services: {a: {image: i, ports: ['x']}}", "services.a.ports[0]"),
        ("services: {a: {image: i, ports: [{published: 5}]}}", "target is missing"),
        ("services: {a: {image: i, networks: [n]}}", "undefined network 'n'"),
        ("services: {a: {image: i, secrets: [n]}}", "undefined secret 'n'"),
        ("services: {a: {image: i, volumes: ['n:/x']}}", "undefined volume 'n'"),
        ("services: {a: {image: i, depends_on: [b]}}", "depends_on names 'b'"),
        ("services: {a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [a]}}", "circle: a → b → a"),
        ("services: {a: {image: i, extends: b}}", "extends is not supported"),
        ("services: {a: {image: i, deploy: {replicas: many}}}", "deploy.replicas: this is a text"),
        ("services: {a: {image: i, deploy: {mode: global, replicas: 2}}}", "replicas can only be used"),
        ("services: {a: {image: i, stop_grace_period: soon}}", "'soon' is no duration"),
        ("services: {a: {image: i, healthcheck: {test: x, disable: true}}}", "can't be set both"),
        ('services: {a: {image: i, command: "\'"}}', "can't be split"),
        ("services: {a: {image: i}}\nsecrets: {x: {file: ./nothing}}", "can't read /srv/nothing"),
        ("services: {a: {image: i}}\nsecrets: {x: {}}", "needs one of file, content"),
        ("services: {a: {image: i}}\nnetworks: {x: {external: true, driver: y}}", "conflicting parameters"),
        ("services: [a]", "this is a list, but it must be a mapping"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, words: str) -> None:
    with pytest.raises(ComposeError) as caught:
        stack(text)
    assert words in str(caught.value)
    assert str(caught.value).startswith("a.yml:")


def test_a_bad_name_is_refused() -> None:
    from shoal.stack.namespace import Namespace

    for name in ("", "-a", "a b", "a" * 51):
        with pytest.raises(InvalidArgument, match="invalid stack name"):
            Namespace(name)
