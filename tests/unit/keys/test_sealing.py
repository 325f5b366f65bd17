"""What is sealed comes back whole, or not at all."""

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.keys import sealing
from manager.keys.sealing import Damaged, WrongKey, key_id, new_key, seal, unseal

RANDOM = random.Random(7)
KEY = new_key(RANDOM)
OTHER = new_key(RANDOM)
SMALL = 64


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "CHUNK", SMALL)


def sealed(chunks: list[bytes], context: bytes = b"") -> bytes:
    return b"".join(seal(chunks, KEY, context, RANDOM))


def opened(data: bytes, key: bytes = KEY, context: bytes = b"") -> bytes:
    return b"".join(unseal(io.BytesIO(data).read, key, context))


chunks_of_bytes = st.lists(st.binary(max_size=3 * SMALL), max_size=6)


@given(chunks_of_bytes)
@settings(deadline=None)
def test_what_was_sealed_comes_back(chunks: list[bytes]) -> None:
    assert opened(sealed(chunks)) == b"".join(chunks)


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 2 * SMALL])
def test_around_the_size_of_a_chunk(size: int) -> None:
    assert opened(sealed([b"x" * size])) == b"x" * size


@given(chunks_of_bytes, st.data())
@settings(deadline=None)
def test_any_change_is_noticed(chunks: list[bytes], data: st.DataObject) -> None:
    content = bytearray(sealed(chunks))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((Damaged, WrongKey)):
        opened(bytes(content))


@given(chunks_of_bytes, st.data())
@settings(deadline=None)
def test_any_cut_is_noticed(chunks: list[bytes], data: st.DataObject) -> None:
    content = sealed(chunks)
    with pytest.raises(Damaged):
        opened(content[: data.draw(st.integers(0, len(content) - 1))])


def test_chunks_out_of_order_or_left_out_are_noticed() -> None:
    content = sealed([b"a" * SMALL, b"b" * SMALL, b"c"])
    head, size = content[: sealing.HEAD_SIZE], 5 + SMALL + sealing.TAG_SIZE
    first, second = (content[len(head) + n * size :][:size] for n in (0, 1))
    rest = content[len(head) + 2 * size :]
    assert opened(head + first + second + rest) == b"a" * SMALL + b"b" * SMALL + b"c"
    for wrong in (second + first + rest, first + rest, first + first + second + rest, first + second):
        with pytest.raises(Damaged):
            opened(head + wrong)


def test_bytes_behind_the_end_are_noticed() -> None:
    with pytest.raises(Damaged, match="behind its end"):
        opened(sealed([b"x"]) + b"\0")


def test_another_key_is_told_from_damage() -> None:
    with pytest.raises(WrongKey, match=f"key {key_id(KEY)}, and the key given is {key_id(OTHER)}"):
        opened(sealed([b"x"]), OTHER)


def test_another_purpose_is_refused() -> None:
    with pytest.raises(Damaged, match="something else"):
        opened(sealed([b"x"], b"a backup"), context=b"a snapshot")


def test_something_that_was_never_sealed() -> None:
    for content in (b"", b"SHOAL", b"x" * 1000):
        with pytest.raises(Damaged):
            opened(content)


def test_nothing_readable_is_left_and_nothing_repeats() -> None:
    secret = b"a secret that nobody may read"
    first, second = sealed([secret]), sealed([secret])
    assert secret not in first
    assert first[sealing.HEAD_SIZE :] != second[sealing.HEAD_SIZE :]


def test_messages() -> None:
    message = sealing.seal_message(KEY, b"hello", b"context", RANDOM)
    assert sealing.unseal_message(KEY, message, b"context") == b"hello"
    for key, content, context in (
        (OTHER, message, b"context"),
        (KEY, message, b"other"),
        (KEY, message[:-1], b"context"),
        (KEY, b"", b"context"),
    ):
        with pytest.raises(Damaged):
            sealing.unseal_message(key, content, context)
