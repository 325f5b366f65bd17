"""A web server's image, built on the spot from packages: each task answers with its own name."""

import shutil
import tempfile
from pathlib import Path

from shoal.demo.packages import download, unpack
from worker.images.build import write_archive
from worker.images.config import ImageConfig
from worker.node import architecture

PACKAGES = ("nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3t64|libssl3", "zlib1g")
PORT = 80
_CONFIG = """\
user nobody nogroup;
worker_processes 1;
daemon off;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen 80 backlog=1024;
    location / {
      default_type text/plain;
      return 200 "$hostname $remote_addr VERSION\\n";
    }
  }
}
"""


def build(out: Path, ref: str, cache: Path, version: str = "1") -> str:
    """Write the image as an archive named `ref`; returns its id.

    It answers "TASK CLIENT VERSION". nginx ends gracefully on SIGQUIT, which the image names as its stop
    signal, so that no request is cut off when a task stops.
    """
    packages = download(PACKAGES, cache)
    with tempfile.TemporaryDirectory(dir=out.parent) as directory:
        rootfs = Path(directory)
        unpack(packages, rootfs)
        for unneeded in ("usr/share", "etc/init.d", "lib/systemd", "usr/lib/systemd"):
            shutil.rmtree(rootfs / unneeded, ignore_errors=True)
        (rootfs / "etc").mkdir(exist_ok=True)
        (rootfs / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        )
        (rootfs / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        (rootfs / "etc/nginx.conf").write_text(_CONFIG.replace("VERSION", version))
        for name in ("tmp", "var/lib/nginx", "var/log/nginx"):
            (rootfs / name).mkdir(parents=True, exist_ok=True)
        (rootfs / "tmp").chmod(0o1777)
        config = ImageConfig(
            cmd=("/usr/sbin/nginx", "-c", "/etc/nginx.conf"),
            exposed_ports=(f"{PORT}/tcp",),
            stop_signal="SIGQUIT",
            architecture=architecture(),
        )
        return write_archive(rootfs, out, ref, config)
