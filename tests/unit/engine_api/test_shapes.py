"""The keys that dockerd 28 always sends: typed clients count on them."""

from typing import Any

import pytest

from tests.unit.engine_api.conftest import Api

INFO = """
Architecture BridgeNfIp6tables BridgeNfIptables CDISpecDirs CPUSet CPUShares CgroupDriver CgroupVersion
ContainerdCommit Containers ContainersPaused ContainersRunning ContainersStopped CpuCfsPeriod CpuCfsQuota
Debug DefaultRuntime DockerRootDir Driver DriverStatus ExperimentalBuild GenericResources HttpProxy
HttpsProxy ID IPv4Forwarding Images IndexServerAddress InitBinary InitCommit Isolation KernelVersion
Labels LiveRestoreEnabled LoggingDriver MemTotal MemoryLimit NCPU NEventsListener NFd NGoroutines Name
NoProxy OSType OSVersion OomKillDisable OperatingSystem PidsLimit Plugins RegistryConfig RuncCommit
Runtimes SecurityOptions ServerVersion SwapLimit Swarm SystemTime Warnings
"""
VERSION = (
    "Platform Version ApiVersion MinAPIVersion Os Arch KernelVersion GoVersion GitCommit BuildTime Components"
)
SUMMARY = """
Command Created HostConfig Id Image ImageID Labels Mounts Names NetworkSettings Ports State Status
"""
INSPECT = """
AppArmorProfile Args Config Created Driver ExecIDs GraphDriver HostConfig HostnamePath HostsPath Id Image
LogPath MountLabel Mounts Name NetworkSettings Path Platform ProcessLabel ResolvConfPath RestartCount
State
"""
STATE = "Dead Error ExitCode FinishedAt OOMKilled Paused Pid Restarting Running StartedAt Status"
HOST_CONFIG = """
AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps
BlkioWeight BlkioWeightDevice CapAdd CapDrop Cgroup CgroupParent CgroupnsMode ConsoleSize ContainerIDFile
CpuCount CpuPercent CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpuShares CpusetCpus
CpusetMems DeviceCgroupRules DeviceRequests Devices Dns DnsOptions DnsSearch ExtraHosts GroupAdd
IOMaximumBandwidth IOMaximumIOps IpcMode Isolation Links LogConfig MaskedPaths Memory MemoryReservation
MemorySwap MemorySwappiness NanoCpus NetworkMode OomKillDisable OomScoreAdj PidMode PidsLimit
PortBindings Privileged PublishAllPorts ReadonlyPaths ReadonlyRootfs RestartPolicy Runtime SecurityOpt
ShmSize UTSMode Ulimits UsernsMode VolumeDriver VolumesFrom
"""
CONFIG = """
AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env Hostname Image Labels OnBuild
OpenStdin StdinOnce Tty User Volumes WorkingDir
"""
NETWORK_SETTINGS = """
Bridge EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen HairpinMode IPAddress IPPrefixLen
IPv6Gateway LinkLocalIPv6Address LinkLocalIPv6PrefixLen MacAddress Networks Ports SandboxID SandboxKey
SecondaryIPAddresses SecondaryIPv6Addresses
"""


def missing(answer: dict[str, Any], keys: str) -> set[str]:
    return set(keys.split()) - answer.keys()


@pytest.mark.parametrize(("path", "keys"), [("/info", INFO), ("/version", VERSION)])
async def test_the_engine(api: Api, path: str, keys: str) -> None:
    assert missing((await api("GET", path))[1], keys) == set()


async def test_containers(api: Api) -> None:
    config = await api.run("web")
    (summary,) = (await api("GET", "/containers/json"))[1]
    assert missing(summary, SUMMARY) == set()
    _, answer = await api("GET", f"/containers/{config.id[:12]}/json")
    assert missing(answer, INSPECT) == set()
    for part, keys in (
        ("State", STATE),
        ("HostConfig", HOST_CONFIG),
        ("Config", CONFIG),
        ("NetworkSettings", NETWORK_SETTINGS),
    ):
        assert missing(answer[part], keys) == set(), part


async def test_volumes(api: Api) -> None:
    await api("POST", "/volumes/create", {"Name": "data"})
    (volume,) = (await api("GET", "/volumes"))[1]["Volumes"]
    assert volume.keys() >= {"CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope"}
