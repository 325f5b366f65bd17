"""resolv.conf and hosts files."""

from netplane import resolv
from netplane.model import DNS

HOST = resolv.parse(
    "# a comment\nnameserver 127.0.0.53\nnameserver 192.0.2.53 # ours\n"
    "search example.com corp\noptions edns0\n"
)


def test_parse() -> None:
    assert HOST.servers == ("127.0.0.53", "192.0.2.53")
    assert HOST.search == ("example.com", "corp")
    assert HOST.options == ("edns0",)


def test_the_hosts_loopback_is_not_given_to_containers() -> None:
    text = resolv.resolv_conf(DNS(), HOST, embedded=False)
    assert text == "nameserver 192.0.2.53\nsearch example.com corp\noptions edns0\n"
    assert "8.8.8.8" in resolv.resolv_conf(DNS(), DNS(("127.0.0.53",)), embedded=False)


def test_embedded() -> None:
    assert resolv.resolv_conf(DNS(search=("app",)), HOST, embedded=True) == (
        "nameserver 127.0.0.11\nsearch app\noptions edns0 ndots:0\n"
    )
    assert resolv.resolv_conf(DNS(search=(".",), options=("ndots:2",)), HOST, embedded=True) == (
        "nameserver 127.0.0.11\noptions ndots:2\n"
    )
    assert resolv.upstreams(DNS(("192.0.2.1",)), HOST) == ("192.0.2.1",)
    assert resolv.upstreams(DNS(), HOST) == ("127.0.0.53", "192.0.2.53")


def test_hosts() -> None:
    text = resolv.hosts("box", ["10.0.0.2"], ["db:10.0.0.9", "up:host-gateway", "six:::1"], "10.0.0.1")
    assert text.endswith("10.0.0.9\tdb\n10.0.0.1\tup\n::1\tsix\n10.0.0.2\tbox\n")
    assert text.startswith("127.0.0.1\tlocalhost\n")
