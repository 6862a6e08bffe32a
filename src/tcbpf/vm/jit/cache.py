"""Machine code on disk: what it is made from names it."""

from __future__ import annotations

import os
from functools import cache

from tcbpf import cache as disk
from tcbpf.vm.jit.image import Image

KIND = "code"
SOURCES = (
    "blind",
    "body",
    "elf_image",
    "image",
    "ir",
    "jit",
    "llvm",
    "llvmtext",
    "memfuncs",
    "../cfg",
    "../frames",
    "../../tables/insns",
    "../../tables/maps",
    "../../tables/opcodes",
)


def key(*parts: bytes) -> str:
    """Return the name of what is made from `parts`, from these sources, for this CPU."""
    return disk.name_of(_sources(), cpu(), *parts)


def load(name: str) -> Image | None:
    """Return the image of that name, or None."""
    kept = disk.load(KIND, name)
    return None if kept is None else Image(*kept)


def store(name: str, image: Image) -> None:
    """Keep an image."""
    disk.store(KIND, name, image.to_cache())


@cache
def _sources() -> bytes:
    """Return a hash of the files that decide what code is written, and of the compiler's release."""
    here, sha = os.path.dirname(__file__), disk.sha256(disk.file_identity(disk.installed(disk.LLVM)))
    for name in SOURCES:
        with open(os.path.join(here, f"{name}.py"), "rb") as file:
            sha.update(file.read())
    return sha.digest()


@cache
def cpu() -> bytes:
    """Return what the kernel says of the first CPU's model and features."""
    lines = []
    try:
        with open("/proc/cpuinfo", "rb") as file:
            for line in file:
                if line.startswith((b"vendor_id", b"cpu family", b"model", b"stepping", b"flags", b"Features")):
                    lines.append(line)
                if line == b"\n":
                    break
    except OSError:
        return os.uname().machine.encode()
    return b"".join(lines)
