"""tcbpf: write, verify, run, step and attach tc/BPF programs, in this process or on the live Linux kernel.

    obj = tcbpf.compile("dns_guard.c")
    with tcbpf.User() as dp:
        prog = dp.load(obj, section="tc")
        print(prog.run(packet, ctx={"mark": 7}).verdict)

Names are imported when they are first used, so that `import tcbpf` costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

TYPE_CHECKING = False  # of a warm start's time, importing typing would be a fifth
if TYPE_CHECKING:
    from typing import Any

    from tcbpf import cbpf
    from tcbpf.datapath.base import Datapath, PcapStats, Prog, Run
    from tcbpf.datapath.kernel import Kernel
    from tcbpf.datapath.user import User
    from tcbpf.errors import (
        AsmError,
        CompileError,
        InputError,
        InternalError,
        MapError,
        NotSupported,
        ObjectError,
        SysError,
        TcbpfError,
        TcError,
        VerifierError,
    )
    from tcbpf.lang import compile
    from tcbpf.maps.map import Map
    from tcbpf.obj import link, load
    from tcbpf.obj.program import MapSpec, Object, Program
    from tcbpf.verifier import Verified, verify

_HOME = {
    "compile": "tcbpf.lang",
    "load": "tcbpf.obj",
    "link": "tcbpf.obj",
    "verify": "tcbpf.verifier",
    "Verified": "tcbpf.verifier",
    "User": "tcbpf.datapath.user",
    "Kernel": "tcbpf.datapath.kernel",
    "Map": "tcbpf.maps.map",
    **dict.fromkeys(("Datapath", "PcapStats", "Prog", "Run"), "tcbpf.datapath.base"),
    **dict.fromkeys(("MapSpec", "Object", "Program"), "tcbpf.obj.program"),
    **dict.fromkeys(
        (
            "AsmError",
            "CompileError",
            "InputError",
            "InternalError",
            "MapError",
            "NotSupported",
            "ObjectError",
            "SysError",
            "TcbpfError",
            "TcError",
            "VerifierError",
        ),
        "tcbpf.errors",
    ),
}

__all__ = [
    "AsmError",
    "CompileError",
    "Datapath",
    "InputError",
    "InternalError",
    "Kernel",
    "Map",
    "MapError",
    "MapSpec",
    "NotSupported",
    "Object",
    "ObjectError",
    "PcapStats",
    "Prog",
    "Program",
    "Run",
    "SysError",
    "TcError",
    "TcbpfError",
    "User",
    "Verified",
    "VerifierError",
    "cbpf",
    "compile",
    "link",
    "load",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "cbpf":
        return importlib.import_module("tcbpf.cbpf")
    if name not in _HOME:
        raise AttributeError(f"module 'tcbpf' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, "cbpf"])
