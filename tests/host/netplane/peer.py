"""What runs in a sandbox or on a client: servers, and clients that say what they found."""

import json
import socket
import sys
import threading
import time
from pathlib import Path


def serve(name: str, port: int) -> None:
    """TCP and UDP, IPv4 and IPv6: say who serves and whom; then echo."""

    def greeting(client: tuple[str, int]) -> bytes:
        return f"{name} {client[0].removeprefix('::ffff:')} {client[1]}\n".encode()

    def listening(kind: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET6, kind)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("::", port))
        return sock

    def talk(connection: socket.socket, client: tuple[str, int]) -> None:
        with connection:
            connection.sendall(greeting(client))
            while data := connection.recv(4096):
                connection.sendall(data)

    def datagrams() -> None:
        udp = listening(socket.SOCK_DGRAM)
        while True:
            _, client = udp.recvfrom(4096)
            udp.sendto(greeting(client), client)

    threading.Thread(target=datagrams, daemon=True).start()
    listener = listening(socket.SOCK_STREAM)
    listener.listen(512)
    print(json.dumps("ready"), flush=True)
    while True:
        connection, client = listener.accept()
        threading.Thread(target=talk, args=(connection, client[:2]), daemon=True).start()


def ask(address: str, port: int, count: int, kind: str, source_port: int, patience: float = 3) -> list[str]:
    """Ask `count` times, a connection each, for `patience` seconds; the answers, or the name of what went
    wrong."""
    answers: list[str] = []
    for _ in range(count):
        stream = kind == "tcp"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
            sock.settimeout(patience)
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


def name_server(address: str) -> None:
    """A DNS server on port 53, UDP and TCP, that has one address for every name."""
    import dns.message
    import dns.rrset

    def reply(data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
        return response.to_wire()

    def streams() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(2)
                answer = reply(connection.recv(4096))
                connection.sendall(len(answer).to_bytes(2, "big") + answer)

    listener = socket.socket()
    listener.bind(("", 53))
    listener.listen()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("", 53))
    threading.Thread(target=streams, daemon=True).start()
    print(json.dumps("ready"), flush=True)
    while True:
        data, client = udp.recvfrom(4096)
        udp.sendto(reply(data), client)


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "serve":
        serve(words[0], int(words[1]))
    elif verb == "name_server":
        name_server(words[0])
    elif verb == "load":
        print(json.dumps(load(words[0], int(words[1]), words[2])))
    elif verb == "hold":
        print(json.dumps(hold(words[0], int(words[1]), words[2])))
