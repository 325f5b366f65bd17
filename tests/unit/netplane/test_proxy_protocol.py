"""The header of the PROXY protocol, as haproxy's doc/proxy-protocol.txt has it."""

from netplane.proxy_protocol import header


def test_version_1() -> None:
    assert header("v1", ("192.0.2.1", 1024), ("198.51.100.1", 80)) == (
        b"PROXY TCP4 192.0.2.1 198.51.100.1 1024 80\r\n"
    )
    assert header("v1", ("2001:db8::1", 65535), ("2001:db8::2", 443)) == (
        b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 443\r\n"
    )


def test_version_2() -> None:
    assert header("v2", ("192.0.2.1", 1024), ("198.51.100.1", 80)) == (
        bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0000201 c6336401 0400 0050")
    )
    six = header("v2", ("2001:db8::1", 1024), ("2001:db8::2", 80))
    assert six[12:16] == bytes.fromhex("21210024")
    assert len(six) == 16 + 36
