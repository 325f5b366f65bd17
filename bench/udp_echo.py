"""The raw limit of a name server in Python: it gives each datagram back as an answer. `… PORT`."""

import socket
import sys


def main() -> None:
    """Serve until killed."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", int(sys.argv[1])))
    print("ready", flush=True)
    while True:
        data, asker = server.recvfrom(4096)
        server.sendto(b"".join((data[:2], b"\x81\x80", data[4:6], b"\0\1", data[8:])), asker)


if __name__ == "__main__":
    main()
