"""Secure shell servers on playground hosts, as real machines have them, with keys that nobody keeps.

Nothing is installed and nothing outside the playground changes: the server runs in the host's namespaces, and
its user and folders are made in the host's own /etc and /run.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from shoal.playground.playground import Playground

_PREPARE = """\
set -eu
mkdir -p /run/sshd
grep -q ^sshd: /etc/passwd || echo sshd:x:74:65534::/run/sshd:/usr/sbin/nologin >>/etc/passwd
sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow  # without PAM, sshd turns locked accounts away
"""
_LISTENING = "for i in $(seq 200); do ss -Hltn sport = :22 | grep -q . && exit; sleep 0.05; done; exit 1"


def server() -> Path | None:
    """This machine's sshd, or the one that setup/tests has unpacked."""
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:{Path(sys.executable).parent}")
    return Path(found).resolve() if found else None


class SecureShell:
    """The servers of one playground, their common key pair, and the client's."""

    def __init__(self, playground: Playground, directory: Path) -> None:
        """Makes the keys in `directory`; they log in as root."""
        self._playground = playground
        self._directory = directory
        self._servers: list[subprocess.Popen[str]] = []
        for name in ("machine", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(command, check=True)
        kind, key, *_ = (directory / "machine.pub").read_text().split()
        addresses = ",".join(host.address for host in playground.hosts())
        (directory / "known_hosts").write_text(f"{addresses} {kind} {key}\n")

    @property
    def client_options(self) -> str:
        """The ssh command's options: our key, and no server but ours."""
        key, known = self._directory / "user", self._directory / "known_hosts"
        return f"-F none -i {key} -o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes"

    def start(self, host: str) -> None:
        """Start a host's server and wait until it listens."""
        prepared = self._playground.run(host, ["sh", "-c", _PREPARE])
        assert prepared.returncode == 0, prepared.stderr
        program = server()
        assert program is not None, "the caller has checked that there is one"
        options = {
            "HostKey": self._directory / "machine",
            "AuthorizedKeysFile": self._directory / "user.pub",
            "StrictModes": "no",  # the key lies below /tmp
            "PidFile": "none",
            "Subsystem": "sftp internal-sftp",
        }
        command = [str(program), "-D", "-e", "-f", "/dev/null"]
        command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        environment = self._playground.environment(host) | _libraries(program)
        with (self._directory / f"{host}.log").open("w") as log:
            self._servers.append(
                self._playground.popen(
                    host, command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            )
        listening = self._playground.run(host, ["sh", "-c", _LISTENING])
        assert listening.returncode == 0, (self._directory / f"{host}.log").read_text()

    def stop(self) -> None:
        """End all servers."""
        for process in self._servers:
            process.terminate()
            process.wait(timeout=10)


def _libraries(program: Path) -> dict[str, str]:
    """Where an unpacked server finds the libraries that were unpacked with it."""
    if program.is_relative_to("/usr"):
        return {}
    folders = {str(library.parent) for library in program.parents[2].rglob("*.so.*")}
    return {"LD_LIBRARY_PATH": ":".join(sorted(folders))}
