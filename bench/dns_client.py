"""Asks a name server again and again: `python -m bench.dns_client ADDRESS PORT SECONDS WINDOW NAME…`.

Prints one JSON object: answers and CPU time; with a window of 1 also percentiles of the time to an answer. A
window of 0 asks one after the other, each from a socket of its own, as resolvers of containers do. An answer
counts if it is to the question, without error and holds an address; anything else ends the run.
"""

import json
import socket
import sys
import time

from bench.report import percentile

TIMEOUT = 2.0


def question(name: str, number: int) -> bytes:
    """A query for an address."""
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


def check(answer: bytes) -> int:
    """The number of a good answer. Raises ValueError."""
    if answer[3] & 15 or not answer[7]:
        raise ValueError(f"code {answer[3] & 15}, {answer[7]} records")
    return answer[0] << 8 | answer[1]


def connected(address: str, port: int) -> socket.socket:
    """A socket to the server."""
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.settimeout(TIMEOUT)
    asker.connect((address, port))
    return asker


def one_by_one(address: str, port: int, queries: list[bytes], seconds: float, *, anew: bool) -> list[float]:
    """Ask, wait for the answer, and ask again; microseconds of each."""
    took = []
    asker = connected(address, port)
    end = time.perf_counter() + seconds
    turn = 0
    while (begun := time.perf_counter()) < end:
        query = queries[turn % len(queries)]
        turn += 1
        if anew:
            asker.close()
            asker = connected(address, port)
        asker.send(query)
        if check(asker.recv(4096)) != query[0] << 8 | query[1]:
            raise ValueError("an answer to another question")
        took.append((time.perf_counter() - begun) * 1e6)
    asker.close()
    return took


def in_windows(address: str, port: int, queries: list[bytes], seconds: float, window: int) -> int:
    """Keep that many questions on their way; how many were answered."""
    asker = connected(address, port)
    send, receive = asker.send, asker.recv
    end = time.perf_counter() + seconds
    asked = answered = 0
    while time.perf_counter() < end:
        while asked - answered < window:
            send(queries[asked % len(queries)])
            asked += 1
        for _ in range(window // 2):
            check(receive(4096))
            answered += 1
    asker.close()
    return answered


def main() -> None:
    """The command."""
    address, port, seconds, window = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    queries = [question(name, number) for number, name in enumerate(sys.argv[5:], 1)]
    one_by_one(address, port, queries, 0.1, anew=False)  # whoever serves may warm up
    found: dict[str, float] = {}
    begun, cpu = time.perf_counter(), time.process_time()
    if window > 1:
        answers = in_windows(address, port, queries, seconds, window)
    else:
        took = one_by_one(address, port, queries, seconds, anew=window == 0)
        answers = len(took)
        found = {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "least": min(took)}
    elapsed = time.perf_counter() - begun
    found |= {"answers": answers, "rate": answers / elapsed, "cpu": time.process_time() - cpu}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
