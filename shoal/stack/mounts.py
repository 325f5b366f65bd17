"""Volumes of a service: short and long forms, and the file's own named volumes."""

import os
from collections.abc import Mapping
from pathlib import Path

from shoal.cli.client import Json
from shoal.stack import reading
from shoal.stack.namespace import Namespace
from shoal.stack.node import ComposeError, Node

VOLUME_FIELDS = ("driver", "driver_opts", "external", "labels", "name")
_FIELDS = (
    "type",
    "source",
    "target",
    "read_only",
    "consistency",
    "bind",
    "volume",
    "tmpfs",
    "image",
    "cluster",
)
_TYPES = ("volume", "bind", "tmpfs", "image")
_PROPAGATION = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_CONSISTENCY = ("consistent", "cached", "delegated", "default")


class Mounts:
    """Turns the volumes of services into mounts. `folder` is what relative paths start from."""

    def __init__(self, namespace: Namespace, volumes: Mapping[str, Node], folder: Path) -> None:
        self._namespace = namespace
        self._volumes = volumes
        self._folder = folder

    def mounts(self, node: Node) -> list[Json]:
        """The mounts of one service, in the file's order."""
        return [self._long(item) if isinstance(item.value, dict) else self._short(item)
                for item in reading.items(node)]  # fmt: skip

    def tmpfs(self, node: Node) -> list[Json]:
        """`tmpfs: /run` or `/run:size=64m`."""
        found = []
        for entry in reading.one_or_more(node):
            target, _, options = entry.partition(":")
            mount: Json = {"Type": "tmpfs", "Target": target}
            for option in filter(None, options.split(",")):
                name, _, value = option.partition("=")
                if name == "size":
                    mount.setdefault("TmpfsOptions", {})["SizeBytes"] = reading.size(node.of(value))
                elif name == "mode" and value.isdigit() and set(value) <= set("01234567"):
                    mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
                else:
                    raise ComposeError(node, f"tmpfs option {option!r} is not one of size=, mode=")
            found.append(mount)
        return found

    def _short(self, item: Node) -> Json:
        text = reading.text(item)
        parts = text.split(":")
        if len(parts) > 3 or not all(parts):
            raise ComposeError(item, f"invalid volume {text!r}: write /path, name:/path or ./folder:/path:ro")
        if len(parts) == 1:
            return self._named(item, {"Type": "volume", "Target": parts[0]}, "")
        source, target = parts[0], parts[1]
        mount: Json = {"Type": "volume", "Target": target}
        if source.startswith(("/", ".", "~")):
            mount = {"Type": "bind", "Source": self._path(source), "Target": target}
        nocopy = False
        for option in parts[2].split(",") if len(parts) > 2 else ():
            if option in ("ro", "rw"):
                mount |= {"ReadOnly": True} if option == "ro" else {}
            elif option == "nocopy" and mount["Type"] == "volume":
                nocopy = True
            elif option in _PROPAGATION and mount["Type"] == "bind":
                mount["BindOptions"] = {"Propagation": option}
            elif option in _CONSISTENCY:
                mount["Consistency"] = option
            elif option not in ("z", "Z"):  # SELinux labels, which docker's stacks leave out too
                raise ComposeError(item, f"{option!r} is no option of this volume")
        return mount if mount["Type"] == "bind" else self._named(item, mount, source, nocopy)

    def _long(self, item: Node) -> Json:
        given = reading.fields(item, _FIELDS)
        kind = reading.choice(given["type"], _TYPES) if "type" in given else "volume"
        source = reading.text(given["source"]) if "source" in given else ""
        mount: Json = {"Type": kind, "Target": reading.text(given["target"]) if "target" in given else ""}
        if not mount["Target"]:
            raise ComposeError(item, "target is missing: the path inside the container")
        if "read_only" in given and reading.truth(given["read_only"]):
            mount["ReadOnly"] = True
        if "consistency" in given:
            mount["Consistency"] = reading.choice(given["consistency"], _CONSISTENCY)
        for other in ("bind", "volume", "tmpfs", "image"):
            if other in given and other != kind:
                raise ComposeError(given[other], f"{other} options are incompatible with type {kind}")
        if kind == "bind":
            return self._bind(item, mount, source, given)
        if kind == "tmpfs":
            return _tmpfs(item, mount, source, given)
        if kind == "image":
            mount["Source"] = source
            options = reading.fields(given["image"], ("subpath",)) if "image" in given else {}
            return mount | (
                {"ImageOptions": {"Subpath": reading.text(options["subpath"])}} if options else {}
            )
        options = reading.fields(given["volume"], ("nocopy", "subpath")) if "volume" in given else {}
        nocopy = "nocopy" in options and reading.truth(options["nocopy"])
        subpath = reading.text(options["subpath"]) if "subpath" in options else ""
        return self._named(item, mount, source, nocopy, subpath)

    def _bind(self, item: Node, mount: Json, source: str, given: Mapping[str, Node]) -> Json:
        if not source:
            raise ComposeError(item, "invalid bind source: source cannot be empty")
        mount["Source"] = self._path(source)
        if "bind" in given:
            options = reading.fields(given["bind"], ("propagation", "create_host_path", "selinux"))
            mount["BindOptions"] = {}
            if "propagation" in options:
                mount["BindOptions"]["Propagation"] = reading.choice(options["propagation"], _PROPAGATION)
            if "create_host_path" in options and reading.truth(options["create_host_path"]):
                mount["BindOptions"]["CreateMountpoint"] = True
        return mount

    def _named(self, item: Node, mount: Json, name: str, nocopy: bool = False, subpath: str = "") -> Json:
        """A volume: anonymous, of this stack, or one that exists already."""
        if not name:
            return mount
        if name not in self._volumes:
            raise ComposeError(item, f"undefined volume {name!r}: define it under volumes at the top")
        given = reading.fields(self._volumes[name], VOLUME_FIELDS)
        options: Json = {"NoCopy": True} if nocopy else {}
        if subpath:
            options["Subpath"] = subpath
        outside, real = external(self._volumes[name], given, name)
        if outside:
            return mount | {"Source": real, **({"VolumeOptions": options} if options else {})}
        mount["Source"] = real or self._namespace.scope(name)
        labels = reading.labels(given["labels"]) if "labels" in given else {}
        options["Labels"] = self._namespace.labels(labels)
        if "driver" in given or "driver_opts" in given:
            options["DriverConfig"] = {
                "Name": reading.text(given["driver"]) if "driver" in given else "",
                "Options": reading.labels(given["driver_opts"]) if "driver_opts" in given else {},
            }
        return mount | {"VolumeOptions": options}

    def _path(self, source: str) -> str:
        path = os.path.expanduser(source) if source.startswith("~") else source
        return os.path.normpath(os.path.join(self._folder, path))


def _tmpfs(item: Node, mount: Json, source: str, given: Mapping[str, Node]) -> Json:
    if source:
        raise ComposeError(item, "invalid tmpfs source: source must be empty")
    options = reading.fields(given["tmpfs"], ("size", "mode")) if "tmpfs" in given else {}
    if options:
        mount["TmpfsOptions"] = {}
    if "size" in options:
        mount["TmpfsOptions"]["SizeBytes"] = reading.size(options["size"])
    if "mode" in options:
        mount["TmpfsOptions"]["Mode"] = reading.integer(options["mode"])
    return mount


def external(node: Node, given: Mapping[str, Node], key: str) -> tuple[bool, str]:
    """Whether the object exists already, and its real name ("" when the file doesn't say and it is ours)."""
    name = reading.text(given["name"]) if "name" in given else ""
    if "external" not in given:
        return False, name
    outside = given["external"]
    if isinstance(outside.value, dict):  # the old form: external: {name: …}
        inner = reading.fields(outside, ("name",))
        return True, reading.text(inner["name"]) if "name" in inner else name or key
    if not reading.truth(outside):
        return False, name
    extra = sorted(set(given) - {"external", "name"})
    if extra:
        raise ComposeError(node, f'conflicting parameters "external" and {", ".join(map(repr, extra))}')
    return True, name or key
