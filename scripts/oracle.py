"""What generated files are compared with: the running kernel's BTF and memory, and the kernel's user-space headers.

A machine may lack them, or have those of another release. Then a check says that it compared nothing; where
TCBPF_REQUIRE_KERNEL=1 says that this machine has what it takes, a lack is a fault.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

BTF = Path("/sys/kernel/btf/vmlinux")
INCLUDE = Path("/usr/include/linux")
UAPI = Path(__file__).resolve().parent.parent / "src/tcbpf/uapi/bpf.py"


def absent(*, headers: bool = False, root: bool = False) -> str:
    """Return why this machine has nothing to compare with, or "" when it has."""
    kernel, libc = re.findall(r"of Linux (\d+\.\d+)", UAPI.read_text()[:1000])[:2]
    running = ".".join(platform.release().split(".")[:2])
    if not os.access(BTF, os.R_OK):
        return f"{BTF} cannot be read"
    if running != kernel:
        return f"this is Linux {running}, the files are of {kernel}"
    if headers and (found := header_release()) != libc:
        return f"{INCLUDE} is {f'of Linux {found}' if found else 'not there'}, the files are of {libc}"
    return "root alone may read the kernel's memory" if root and os.geteuid() else ""


def header_release() -> str:
    """Return the release of the user-space headers, "" when there are none."""
    try:
        text = (INCLUDE / "version.h").read_text()
    except OSError:
        return ""
    found = re.search(r"LINUX_VERSION_MAJOR (\d+).*?LINUX_VERSION_PATCHLEVEL (\d+)", text, re.S)
    return ".".join(found.groups()) if found else ""


def not_compared(name: str, why: str) -> int:
    """Say that a comparison was not made and return the exit status."""
    print(f"{name}: not compared: {why}", file=sys.stderr)
    return int(os.environ.get("TCBPF_REQUIRE_KERNEL") == "1")
