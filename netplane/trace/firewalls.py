"""Other people's firewalls on this host, as far as their policies tell; their rules are not gone through."""

from netplane.trace.progress import Walk


def forwards(walk: Walk, stage: str, address: str) -> bool:
    """Whether this host forwards packets to an address, as far as is known; tells if not."""
    for each in walk.scene.firewalls:
        if each.hook == "forward" and each.concerns(address):
            walk.bad(stage, each.warning, "accept the traffic of Shoal's bridges there")
            return False
    return True


def lets_in(walk: Walk, address: str, what: str) -> bool:
    """The same of packets to this host itself. Args: what: they are, for a sentence."""
    for each in walk.scene.firewalls:
        if each.hook != "input" or not each.concerns(address):
            continue
        if each.empty:
            walk.bad("way", f"{each.where} drops all that comes to this host", f"accept {what} there")
            return False
        walk.unchecked("way", f"whether {each.where}, which drops what it has no rule for, accepts {what}")
    return True
