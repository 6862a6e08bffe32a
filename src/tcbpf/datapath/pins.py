"""Pin paths of an object's maps: the scopes of tc(8), and the directories that configuration gives them.

Source:  lib/bpf_legacy.c of iproute2; Paper, "Object pinning".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tcbpf.errors import InputError
from tcbpf.obj.program import PIN_GLOBAL_NS, PIN_NONE, PIN_OBJECT_NS

if TYPE_CHECKING:
    from tcbpf.obj.program import MapSpec, Object

BPFFS = "/sys/fs/bpf"
"""The mount point of the bpf fs; the user datapath has this path below its home."""

WORK_DIR = f"{BPFFS}/tc"

PINNING = ("/etc/iproute2/bpf_pinning", "/usr/share/iproute2/bpf_pinning")
"""The files that name custom pinning scopes."""


def pin_path(spec: MapSpec, obj: Object, pin_root: str = "", scopes: Mapping[int, str] | None = None) -> str:
    """Return the path to pin a map of `obj` at, or "" for none.

    Raises:  InputError for a custom scope that no configuration names.
    """
    if spec.pinning == PIN_NONE:
        return ""
    if spec.pinning == PIN_GLOBAL_NS:
        return f"{pin_root or WORK_DIR + '/globals'}/{spec.name}"
    if spec.pinning == PIN_OBJECT_NS:
        return f"{WORK_DIR}/{obj.sha1}/{spec.name}"
    scope = (read_scopes()[0] if scopes is None else scopes).get(spec.pinning)
    if scope is None:
        raise InputError(
            f"map {spec.name} is pinned in scope {spec.pinning}, which nothing names",
            where=obj.path,
            hint=f'a line "{spec.pinning} DIRECTORY" in /etc/iproute2/bpf_pinning',
        )
    return f"{BPFFS}/{scope.strip('/')}/{spec.name}"


def read_scopes(paths: tuple[str, ...] = PINNING) -> tuple[dict[int, str], list[str]]:
    """Return the directory of each custom pinning scope, from the first file that is there, and remarks about it.

    Lines are "ID DIRECTORY"; ids 0, 1 and 2 are reserved.
    """
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = [line.split("#", 1)[0].split() for line in file]
        except OSError:
            continue
        scopes: dict[int, str] = {}
        remarks: list[str] = []
        for fields in filter(None, lines):
            if len(fields) != 2 or not fields[0].isdigit():
                remarks.append(f"Database {path} is corrupted at: {' '.join(fields)}")
            elif int(fields[0]) in (PIN_NONE, PIN_OBJECT_NS, PIN_GLOBAL_NS):
                remarks.append(f"Database {path}, id {fields[0]} is reserved - ignoring!")
            else:
                scopes[int(fields[0])] = fields[1]
        return scopes, remarks
    return {}, []
