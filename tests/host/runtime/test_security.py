"""What a container may not do, and that ordinary programs do not notice."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.host.runtime.conftest import Node
from tests.support.runtime_conformance import MakeConfig
from worker.logs.reader import LogQuery
from worker.runtime import bpf
from worker.runtime.model import LogConfig, Rlimit, SeccompMode
from worker.runtime.oci import OCIRuntime

pytestmark = pytest.mark.host

# Each line: name, system call number on x86-64, arguments. Prints "name errno".
PROBE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/socket.h>
#include <unistd.h>
#define TRY(name, ...) errno = 0; syscall(__VA_ARGS__); printf("%s %d\n", name, errno);
int main(void) {
  TRY("mount", SYS_mount, "none", "/tmp", "tmpfs", 0, 0)
  TRY("unshare", SYS_unshare, 0x10000000)
  TRY("clone3", SYS_clone3, 0, 0)
  TRY("keyctl", SYS_keyctl, 0, 0)
  TRY("add_key", SYS_add_key, 0, 0, 0, 0, 0)
  TRY("bpf", SYS_bpf, 0, 0, 0)
  TRY("kexec_load", SYS_kexec_load, 0, 0, 0, 0)
  TRY("reboot", SYS_reboot, 0, 0, 0, 0)
  TRY("io_uring_setup", SYS_io_uring_setup, 0, 0)
  TRY("userfaultfd", SYS_userfaultfd, 0)
  TRY("perf_event_open", SYS_perf_event_open, 0, 0, 0, 0, 0)
  TRY("open_by_handle_at", SYS_open_by_handle_at, 0, 0, 0)
  TRY("vsock", SYS_socket, 40, SOCK_STREAM, 0)
  TRY("getpid", SYS_getpid)
  TRY("tcp", SYS_socket, AF_INET, SOCK_STREAM, 0)
  TRY("futex", SYS_futex, 0, 1, 0, 0, 0, 0)
  return 0;
}
"""
LIMITS_SCRIPT = "ulimit -n; cat /proc/sys/kernel/shm_rmid_forced; hostname; pwd; echo $HOME"
EPERM, EFAULT, ENOSYS = 1, 14, 38


@pytest.fixture(scope="session")
def probe_layer(layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer with the probe program."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler for the probe program")
    base = tmp_path_factory.mktemp("probe")
    (base / "probe.c").write_text(PROBE)
    top = base / "layer"
    top.mkdir()
    subprocess.run([compiler, "-o", top / "probe", base / "probe.c"], check=True)
    return top


async def output(runtime: OCIRuntime, id: str) -> str:
    """Run a container to its end; all that it wrote."""
    await runtime.start_container(id)
    await runtime.wait(id)
    entries = [entry async for entry in runtime.logs(id, LogQuery())]
    return b"".join(entry.data for entry in entries).decode()


async def run(runtime: OCIRuntime, config: MakeConfig, *args: str, **fields: object) -> str:
    made = config(*args, **fields)
    await runtime.create(made)
    return await output(runtime, made.id)


async def probe(
    runtime: OCIRuntime, config: MakeConfig, layers: tuple[Path, ...], **fields: object
) -> dict[str, int]:
    text = await run(runtime, config, "/probe", layers=layers, **fields)
    return {name: int(number) for name, number in (line.split() for line in text.splitlines())}


async def test_default_seccomp_profile(
    runtime: OCIRuntime, config: MakeConfig, layer: Path, probe_layer: Path
) -> None:
    found = await probe(runtime, config, (layer, probe_layer))
    refused = {name for name, number in found.items() if number == EPERM}
    assert refused == {
        "mount", "unshare", "keyctl", "add_key", "bpf", "kexec_load", "reboot", "io_uring_setup",
        "userfaultfd", "perf_event_open", "open_by_handle_at", "vsock",
    }  # fmt: skip
    assert found["clone3"] == ENOSYS
    assert found["getpid"] == found["tcp"] == 0
    assert found["futex"] == EFAULT  # the kernel itself looked at its address


async def test_capabilities_open_what_they_guard(
    runtime: OCIRuntime, config: MakeConfig, layer: Path, probe_layer: Path
) -> None:
    found = await probe(runtime, config, (layer, probe_layer), cap_add=("SYS_ADMIN",))
    assert found["mount"] == 0
    assert found["unshare"] == 0
    assert found["keyctl"] == EPERM
    open_wide = await probe(runtime, config, (layer, probe_layer), seccomp=SeccompMode.UNCONFINED)
    assert open_wide["clone3"] != ENOSYS


async def test_status_of_the_first_process(runtime: OCIRuntime, config: MakeConfig) -> None:
    text = await run(runtime, config, "cat", "/proc/self/status")
    status = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    assert status["CapEff"].strip() == "00000000a80425fb"  # Docker's default set
    assert status["Seccomp"].strip() == "2"
    assert status["NoNewPrivs"].strip() == "0"
    text = await run(runtime, config, "cat", "/proc/self/status", user="alice", no_new_privileges=True)
    status = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    assert status["CapEff"].strip() == "0" * 16
    assert status["CapBnd"].strip() == "00000000a80425fb"
    assert status["NoNewPrivs"].strip() == "1"


async def test_masked_and_read_only_paths(runtime: OCIRuntime, config: MakeConfig) -> None:
    script = (
        "cat /proc/keys | wc -c; cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l;"
        "touch /sys/x 2>/dev/null || echo ro-sys; echo 1 2>/dev/null > /proc/sysrq-trigger || echo ro-sysrq"
    )
    text = await run(runtime, config, "sh", "-c", script)
    assert text.split() == ["0", "0", "0", "ro-sys", "ro-sysrq"]


async def test_devices(runtime: OCIRuntime, config: MakeConfig) -> None:
    script = (
        "echo x > /dev/null && head -c 4 /dev/zero | wc -c; ls /dev | tr '\\n' ' ';"
        "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg || echo refused; ls -d /dev/shm /dev/mqueue /dev/pts"
    )
    text = await run(runtime, config, "sh", "-c", script + " 2>&1")
    assert text.startswith("4\n")
    assert "refused" in text
    assert "sda" not in text
    assert "vda" not in text
    assert "/dev/mqueue\n/dev/pts\n/dev/shm" in text


async def test_users(runtime: OCIRuntime, config: MakeConfig) -> None:
    cases = {
        "": "0 0 0 10",
        "alice": "1000 1001 1001 50",
        "alice:staff": "1000 50 50",
        "4242": "4242 0 0",
        "4242:77": "4242 77 77",
    }
    for user, wanted in cases.items():
        text = await run(runtime, config, "sh", "-c", "echo $(id -u) $(id -g) $(id -G)", user=user)
        assert text.strip() == wanted, user
    made = config("true", user="mallory")
    await runtime.create(made)
    with pytest.raises(Exception, match="unable to find user mallory"):
        await runtime.start_container(made.id)


async def test_a_password_file_that_is_a_link_out_is_not_followed(
    runtime: OCIRuntime, config: MakeConfig, layer: Path, tmp_path: Path
) -> None:
    top = tmp_path / "evil"
    (top / "etc").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_text("mallory:x:0:0::/:/bin/sh\n")
    (top / "etc" / "passwd").symlink_to(outside)
    os.symlink("/proc/self/root", top / "escape")
    made = config("true", user="mallory", layers=(layer, top))
    await runtime.create(made)
    with pytest.raises(Exception, match="unable to find user"):
        await runtime.start_container(made.id)


async def test_the_compiled_filter_is_what_the_runtime_makes(
    node: Node, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await node.runtime()
    filters = []
    for compiled in (bpf.compiled, lambda profile: ""):
        monkeypatch.setattr(bpf, "compiled", compiled)
        made = config("sleep", "1000")
        await runtime.create(made)
        await runtime.start_container(made.id)
        filters.append((node.run / "oci" / made.id / "seccomp.bpf").read_bytes())
    assert len(filters[0]) > 4096
    assert filters[0] == filters[1]


async def test_sysctls_and_limits(runtime: OCIRuntime, config: MakeConfig) -> None:
    text = await run(
        runtime, config, "sh", "-c", LIMITS_SCRIPT,
        ulimits=(Rlimit(name="nofile", soft=512, hard=1024),), sysctls={"kernel.shm_rmid_forced": "1"},
        hostname="box", cwd="/made/for/me",
    )  # fmt: skip
    assert text.split() == ["512", "1", "box", "/made/for/me", "/root"]


async def test_what_a_container_does_not_say_is_as_the_node_does(node: Node, config: MakeConfig) -> None:
    runtime = await node.runtime(default_log=LogConfig(driver="local"), default_init=True)
    usual = config("cat", "/proc/1/comm", init=None, log=LogConfig(driver=""))
    await runtime.create(usual)
    assert await output(runtime, usual.id) == "docker-init\n"
    assert runtime.get(usual.id)[0].log.driver == "local"
    own = config("cat", "/proc/1/comm", init=False)
    await runtime.create(own)
    assert await output(runtime, own.id) == "cat\n"
