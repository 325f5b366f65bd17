"""What a service's options have come to: in its containers, on their hosts, and in the API."""

import json
import re
from dataclasses import dataclass
from functools import cached_property

from tests.support.cluster import Cluster, Json, eventually

LIMIT_FILES = """
for line in $(cat /proc/$1/cgroup); do
    controllers=$(echo $line | cut -d: -f2); path=$(echo $line | cut -d: -f3)
    for file in memory.limit_in_bytes memory.max cpu.cfs_quota_us cpu.max pids.max; do
        for place in /sys/fs/cgroup/$controllers$path /sys/fs/cgroup$path; do
            if [ -e $place/$file ]; then echo $file=$(cat $place/$file); fi
        done
    done
done
"""


@dataclass
class Seen:
    """A service with a task that runs. Whatever is asked for is looked up then, and kept."""

    cluster: Cluster
    name: str
    task: Json

    @cached_property
    def service(self) -> Json:
        """The service as the API tells it."""
        return self.cluster.inspect("service", self.name)

    @property
    def template(self) -> Json:
        """Its task template."""
        found: Json = self.service["Spec"]["TaskTemplate"]
        return found

    @property
    def container_spec(self) -> Json:
        """Its containers' part of the template."""
        found: Json = self.template["ContainerSpec"]
        return found

    @cached_property
    def host(self) -> str:
        """The host that the task is on."""
        return self.cluster.host_of(self.task)

    @cached_property
    def container(self) -> Json:
        """The container as its host's API tells it."""
        return self.cluster.container(self.task)

    @property
    def log_config(self) -> Json:
        """Its log driver and that one's options."""
        found: Json = self.container["HostConfig"]["LogConfig"]
        return found

    def sh(self, script: str) -> str:
        """What a script says in the task's container."""
        return self.cluster.enter(self.task, script)

    @cached_property
    def environ(self) -> list[str]:
        """The environment of its first process."""
        return self.sh("tr '\\0' '\\n' </proc/1/environ").splitlines()

    @cached_property
    def status(self) -> dict[str, str]:
        """/proc/1/status of the container."""
        lines = self.sh("cat /proc/1/status").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @cached_property
    def mounts(self) -> dict[str, str]:
        """The options of each mount in the container, by target, with its type in front."""
        rows = [line.split() for line in self.sh("cat /proc/mounts").splitlines()]
        return {row[1]: f"{row[2]},{row[3]}" for row in rows}

    @cached_property
    def resolv_conf(self) -> list[str]:
        """The lines of /etc/resolv.conf."""
        return self.sh("cat /etc/resolv.conf").splitlines()

    @cached_property
    def hosts_file(self) -> list[list[str]]:
        """The words of the lines of /etc/hosts."""
        return [line.split() for line in self.sh("cat /etc/hosts").splitlines()]

    def sysctl(self, path: str) -> str:
        """A kernel parameter in the container, by its path below /proc/sys."""
        return self.sh(f"cat /proc/sys/{path}")

    def resolves(self, name: str) -> bool:
        """Whether a name has an address in the container."""
        return "Name:" in self.sh(f"nslookup {name} 127.0.0.11 || true")

    @property
    def constraints(self) -> list[str]:
        """The service's placement constraints."""
        found: list[str] = self.template["Placement"]["Constraints"]
        return found

    @property
    def preferences(self) -> list[str]:
        """What the service is spread over."""
        return [each["Spread"]["SpreadDescriptor"] for each in self.template["Placement"]["Preferences"]]

    @property
    def spread(self) -> list[str]:
        """The hosts of its tasks that run."""
        return self.cluster.spread(self.cluster.tasks_in(self.name, "running"))

    @property
    def reserved(self) -> Json:
        """What each task reserves."""
        found: Json = self.template["Resources"]["Reservations"]
        return found

    @property
    def networks(self) -> list[str]:
        """The names of the networks that the container is in."""
        return sorted(self.container["NetworkSettings"]["Networks"])

    @property
    def published(self) -> Json:
        """The container's ports that its host publishes."""
        found: Json = self.container["NetworkSettings"]["Ports"]
        return {port: bound for port, bound in found.items() if bound}

    @property
    def dns(self) -> Json:
        """The DNS settings of its spec."""
        found: Json = self.container_spec["DNSConfig"]
        return found

    @property
    def health(self) -> Json:
        """The container's health now."""
        found: Json = self.cluster.container(self.task)["State"]["Health"]
        return found

    @property
    def health_check(self) -> Json:
        """How its host probes the container."""
        found: Json = self.container["Config"]["Healthcheck"]
        return found

    @property
    def restarts(self) -> Json:
        """Its restart policy."""
        found: Json = self.template["RestartPolicy"]
        return found

    @property
    def updates(self) -> Json:
        """Its update policy."""
        found: Json = self.service["Spec"]["UpdateConfig"]
        return found

    @property
    def rollbacks(self) -> Json:
        """Its rollback policy."""
        found: Json = self.service["Spec"]["RollbackConfig"]
        return found

    def probes(self, count: int) -> bool:
        """Whether it is probed so often, sooner or later."""
        return eventually(f"{count} probes", lambda: len(self.health["Log"]) >= count)

    @cached_property
    def limits(self) -> set[str]:
        """`FILE=VALUE` of the limits in the container's cgroup."""
        command = ["sh", "-c", LIMIT_FILES, "-", str(self.container["State"]["Pid"])]
        return set(self.cluster.playground.run(self.host, command).stdout.splitlines())

    def capable(self, number: int) -> bool:
        """Whether its first process may have that capability (linux/capability.h)."""
        return bool(int(self.status["CapBnd"], 16) & (1 << number))

    def rlimit(self, name: str) -> list[str]:
        """Soft and hard limit, as /proc/1/limits names it."""
        found = re.search(rf"^{name} +(\S+) +(\S+)", self.sh("cat /proc/1/limits"), re.MULTILINE)
        return list(found.groups()) if found else []

    def everything(self) -> str:
        """For messages: the service's spec."""
        return json.dumps(self.service["Spec"], indent=1)
