"""What runs in a sandbox or on a client: a small server, or a client. Prints one JSON value."""

import json
import socket
import sys
import threading
import time
from pathlib import Path


def serve(name: str, port: int) -> None:
    """TCP and UDP: say who serves and whom; then echo."""

    def talk(connection: socket.socket, client: tuple[str, int]) -> None:
        with connection:
            connection.sendall(f"{name} {client[0]} {client[1]}\n".encode())
            while data := connection.recv(4096):
                connection.sendall(data)

    def datagrams() -> None:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("", port))
        while True:
            _, client = udp.recvfrom(4096)
            udp.sendto(f"{name} {client[0]} {client[1]}\n".encode(), client)

    threading.Thread(target=datagrams, daemon=True).start()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", port))
    listener.listen(512)
    print(json.dumps("ready"), flush=True)
    while True:
        connection, client = listener.accept()
        threading.Thread(target=talk, args=(connection, client), daemon=True).start()


def ask(address: str, port: int, count: int, kind: str, source_port: int) -> list[str]:
    """Ask `count` times, a connection each; the answers, or the name of what went wrong."""
    answers: list[str] = []
    for _ in range(count):
        stream = kind == "tcp"
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
            sock.settimeout(3)
            try:
                if source_port:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(("", source_port))
                sock.connect((address, port))
                if not stream:
                    sock.send(b"?")
                answers.append(sock.recv(4096).decode().strip())
            except OSError as error:
                answers.append(type(error).__name__)
    return answers


def load(address: str, port: int, stop_file: str) -> dict[str, object]:
    """Connect again and again until a file appears."""
    good, bad = 0, []
    servers: dict[str, int] = {}
    started = False
    while not Path(stop_file).exists():
        answer = ask(address, port, 1, "tcp", 0)[0]
        if " " in answer:
            good += 1
            name = answer.split()[0]
            servers[name] = servers.get(name, 0) + 1
            if not started:
                started = True
                Path(stop_file + ".started").touch()
        else:
            bad.append(answer)
    return {"good": good, "bad": bad, "servers": servers}


def hold(address: str, port: int, stop_file: str) -> dict[str, object]:
    """One connection, echoing until a file appears; the longest silence in seconds."""
    longest, rounds = 0.0, 0
    with socket.create_connection((address, port), 3) as sock:
        file = sock.makefile("rb")
        hello = file.readline().decode().strip()
        Path(stop_file + ".started").touch()
        while not Path(stop_file).exists():
            began = time.monotonic()
            sock.sendall(b"again\n")
            if file.readline() != b"again\n":
                return {"hello": hello, "rounds": rounds, "broken": True}
            longest = max(longest, time.monotonic() - began)
            rounds += 1
    return {"hello": hello, "rounds": rounds, "broken": False, "longest": longest}


def resolve(name: str, kind: str, tcp: str) -> dict[str, object]:
    """Ask 127.0.0.11 as a container's resolver would."""
    import dns.message
    import dns.query
    import dns.rcode

    query = dns.message.make_query(name, kind)
    ask_server = dns.query.tcp if tcp == "tcp" else dns.query.udp
    answer = ask_server(query, "127.0.0.11", timeout=5)
    return {
        "code": dns.rcode.to_text(answer.rcode()),
        "records": sorted(str(item) for rrset in answer.answer for item in rrset),
    }


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "serve":
        serve(words[0], int(words[1]))
    elif verb == "ask":
        print(json.dumps(ask(words[0], int(words[1]), int(words[2]), words[3], int(words[4]))))
    elif verb == "load":
        print(json.dumps(load(words[0], int(words[1]), words[2])))
    elif verb == "hold":
        print(json.dumps(hold(words[0], int(words[1]), words[2])))
    elif verb == "resolve":
        print(json.dumps(resolve(words[0], words[1], words[2])))
