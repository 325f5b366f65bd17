"""Field names of the Docker Engine API.

Specs are stored and spoken in the Engine's own JSON names, so that a request decodes straight into a
typed struct. Engine names are PascalCase with Go's initialisms (`NanoCPUs`, `DNSConfig`, `SecretID`).
"""

_INITIALISMS = {
    "ca": "CA",
    "cas": "CAs",
    "cpus": "CPUs",
    "dns": "DNS",
    "gid": "GID",
    "id": "ID",
    "ip": "IP",
    "ipam": "IPAM",
    "ips": "IPs",
    "ipv6": "IPv6",
    "os": "OS",
    "pid": "PID",
    "tls": "TLS",
    "tty": "TTY",
    "uid": "UID",
    "url": "URL",
    "selinux": "SELinux",
    "app": "App",
    "apparmor": "AppArmor",
}


def engine_name(field: str) -> str:
    """The Engine API's JSON name of a Python field: `nano_cpus` → `NanoCPUs`."""
    return "".join(_INITIALISMS.get(word, word.capitalize()) for word in field.split("_"))
