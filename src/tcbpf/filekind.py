"""What kind of file it is: by what it begins with, then by its name.

Source:  System V ABI, ELF header; LLVM bitcode file format; draft-ietf-opsawg-pcap and -pcapng; RFC 1952.
"""

from __future__ import annotations

import os

C, ASSEMBLY, LLVM, OBJECT = "C source", "assembly text", "LLVM code", "ELF object"
PCAP, PCAPNG, GZIP = "pcap capture", "pcapng capture", "gzip file"
BYTECODE, TEXT = "bytecode", "text"  # neither the first bytes nor the name tell
CAPTURES = (PCAP, PCAPNG)
SOURCES = (C, ASSEMBLY)

HEAD = 16
"""Bytes at the start of a file that tell its kind."""

MAGIC = {
    b"\x7fELF": OBJECT,
    b"BC\xc0\xde": LLVM,
    b"\xde\xc0\x17\x0b": LLVM,  # bitcode in a wrapper
    b"\x0a\x0d\x0d\x0a": PCAPNG,
    b"\xa1\xb2\xc3\xd4": PCAP,  # microseconds
    b"\xd4\xc3\xb2\xa1": PCAP,
    b"\xa1\xb2\x3c\x4d": PCAP,  # nanoseconds
    b"\x4d\x3c\xb2\xa1": PCAP,
    b"\xa1\xb2\xcd\x34": PCAP,  # a larger packet header
    b"\x34\xcd\xb2\xa1": PCAP,
    b"\x1f\x8b": GZIP,
}
SUFFIX = {".c": C, ".s": ASSEMBLY, ".ll": LLVM}


def of_bytes(head: bytes, name: str = "") -> str:
    """Return the kind of a file that begins with `head` and is called `name`."""
    for magic in head[:4], head[:2]:
        if magic in MAGIC:
            return MAGIC[magic]
    return SUFFIX.get(os.path.splitext(name)[1]) or (BYTECODE if b"\0" in head[:HEAD] else TEXT)


def of_path(path: str | os.PathLike[str]) -> str:
    """Return the kind of a file; of one that cannot be read, by its name."""
    name = os.fspath(path)
    try:
        with open(name, "rb", buffering=0) as file:
            return of_bytes(file.read(HEAD), name)
    except OSError:
        return of_bytes(b"", name)
