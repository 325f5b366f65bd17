"""The `shoald` command."""

import asyncio
import logging
import resource
import sys
from pathlib import Path
from typing import Any

import click

from cluster import logs
from cluster.errors import ShoalError
from manager import garbage
from shoal.daemon import config as settings
from shoal.daemon import malloc
from shoal.daemon.pidfile import DirectoryLock, PidFile
from worker.runtime import hybrid

log = logging.getLogger("shoal.daemon")

_FLAGS_TO_FIELDS = {
    "host": "hosts",
    "label": "labels",
    "insecure_registry": "insecure_registries",
    "registry_mirror": "registry_mirrors",
    "node_generic_resource": "node_generic_resources",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-H", "--host", multiple=True, help="Socket to serve the API on: unix://PATH or tcp://ADDR:PORT"
)
@click.option("--data-root", help="Directory of persistent state (/var/lib/shoal)")
@click.option("--exec-root", help="Directory of state that a reboot may lose (/run/shoal)")
@click.option("-p", "--pidfile", help="Path of the daemon's PID file")
@click.option("-l", "--log-level", type=click.Choice(settings.LOG_LEVELS), help="How much to log")
@click.option("--log-format", type=click.Choice(settings.LOG_FORMATS), help="Form of the log lines")
@click.option("--config-file", type=click.Path(path_type=Path), help="JSON file with settings")
@click.option("--label", multiple=True, help="Engine label, key=value")
@click.option("--node-generic-resource", multiple=True, help="What this node has: gpu=NAME, or ssd=4")
@click.option("--insecure-registry", multiple=True, help="Registry or CIDR to use without verified TLS")
@click.option("--registry-mirror", multiple=True, help="Mirror of the default registry")
@click.option("--tls", is_flag=True, default=None, help="Serve TCP with TLS; implied by --tlsverify")
@click.option("--tlsverify", is_flag=True, default=None, help="Serve TCP with TLS and verify clients")
@click.option("--tlscacert", help="Trust client certificates signed by this CA only")
@click.option("--tlscert", help="The server's certificate")
@click.option("--tlskey", help="The server's key")
@click.option("--allow-insecure-tcp", is_flag=True, default=None, help="Serve TCP off loopback without TLS")
@click.option("--cgroup-parent", help="Parent cgroup of all containers (one for each data root)")
@click.option(
    "--manager-user", help="User, UID or UID:GID of the manager process (shoal-manager, or else 65521)"
)
@click.option(
    "--advertise-addr",
    help="This node's new address in its cluster: IP, IP:PORT or interface",
)
@click.option("--default-runtime", help="OCI runtime: crun (default) or runc")
@click.option("--log-driver", help="Log driver of containers that name none (json-file)")
@click.option("--log-opt", "log_opts", multiple=True, help="Option of the default log driver, key=value")
@click.option("--init", is_flag=True, default=None, help="Run an init in containers that don't say")
@click.option("--metrics-addr", help="Serve metrics for Prometheus at ADDRESS:PORT, by plain HTTP")
@click.version_option(package_name="shoal", prog_name="shoald")
def main(config_file: Path | None, **flags: Any) -> None:
    """Shoal's node daemon: runs containers and serves the Docker Engine API."""
    given = {_FLAGS_TO_FIELDS.get(k, k): v for k, v in flags.items() if v is not None and v != ()}
    if "log_opts" in given:
        given["log_opts"] = dict(text.partition("=")[::2] for text in given["log_opts"])
    try:
        config = settings.load(given, config_file)
    except ShoalError as error:
        click.echo(f"shoald: {error}", err=True)
        sys.exit(2)
    logs.configure(config.log_level, config.log_format)
    malloc.return_freed_memory()
    open_files = _raise_open_files()
    from shoal.daemon.daemon import Daemon  # after the flags, so that --help answers at once

    garbage.keep_collections_short()  # while one runs, nobody answers names
    try:
        with (
            PidFile(Path(config.pidfile)),
            DirectoryLock(Path(config.data_root), "--data-root"),
            DirectoryLock(Path(config.exec_root), "--exec-root"),
        ):
            hybrid.enter(Path(config.exec_root))  # before any thread exists
            asyncio.run(Daemon(config, open_files).run())
    except ShoalError as error:
        log.critical("%s", error)
        sys.exit(1)
    except OSError as error:
        log.critical("shoald can't go on: %s", error, exc_info=error)
        sys.exit(1)


def _raise_open_files() -> int:
    """Lift this process's limit of open files, several of which each container takes. Returns what it was.

    Containers get the former limit: programs that close every descriptor they may have suffer from more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


if __name__ == "__main__":
    main()
