"""A stand-in for shoald: answers `/_ping` on its socket, starts nothing, ends on SIGTERM."""

import argparse
import http.server
import os
import signal
import socketserver
import sys


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Api-Version", "1.50")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, format: str, *args: object) -> None:
        sys.stderr.write(f"{format % args}\n")

    def address_string(self) -> str:
        return "local"


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--die", action="store_true")
    known, _ = parser.parse_known_args()
    if known.die:
        sys.exit("standin: told to die")
    path = known.host.removeprefix("unix://")
    if os.path.exists(path):
        os.unlink(path)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _Server(path, _Handler).serve_forever()


if __name__ == "__main__":
    main()
