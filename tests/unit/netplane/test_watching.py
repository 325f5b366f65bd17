"""When rules are put back that others changed."""

import asyncio
import os
from typing import cast

import pytest

from netplane import watching
from netplane.errors import NetworkError
from netplane.netlink.nft_events import ALL, RulesWatch, tables_in
from netplane.watching import HOST, Watching


class Changes:
    """A watch that tells what the test says."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._tables: set[str] = set()

    def fileno(self) -> int:
        return self._reader

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def tell(self, *tables: str) -> None:
        self._tables |= set(tables)
        os.write(self._writer, b"x")

    def changed(self) -> set[str]:
        os.read(self._reader, 4096)
        tables, self._tables = self._tables, set()
        return tables


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_SOONEST", 0.001)
    monkeypatch.setattr(watching, "_LOOK", 0.001)


async def test_what_others_change_is_put_back_or_looked_at() -> None:
    restored: asyncio.Queue[str] = asyncio.Queue()
    looks: asyncio.Queue[None] = asyncio.Queue()
    failing = [True]

    async def restore(name: str) -> None:
        await restored.put(name)
        if failing.pop() if failing else False:
            raise NetworkError("not now")

    async def look() -> None:
        await looks.put(None)

    watch = Watching(restore, look)
    host, box = Changes(), Changes()
    watch.add(HOST, cast(RulesWatch, host))
    watch.add("box", cast(RulesWatch, box))
    async with asyncio.timeout(10):
        host.tell("theirs")
        await looks.get()
        assert restored.empty()
        for _ in range(2):  # also after one that failed
            host.tell("shoal")
            assert await restored.get() == HOST
        host.tell("shoal_encryption")
        assert await restored.get() == HOST
        assert looks.empty()
        host.tell(ALL)
        assert await restored.get() == HOST
        await looks.get()
        box.tell("theirs")
        box.tell("shoal")
        assert await restored.get() == "box"
        assert looks.empty()
        watch.remove("box")
        watch.remove("box")
        await watch.close()


def test_messages_say_which_table_they_are_about() -> None:
    def message(kind: int, body: bytes) -> bytes:
        return (16 + 4 + len(body)).to_bytes(4, "little") + bytes([kind, 10]) + bytes(10) + bytes(4) + body

    table = b"\x0a\x00\x01\x00shoal\x00\x00\x00"
    assert tables_in(message(2, table) + message(15, b"")) == {"shoal"}
    assert tables_in(message(2, b"")) == {ALL}
    assert tables_in(b"\x01") == set()
