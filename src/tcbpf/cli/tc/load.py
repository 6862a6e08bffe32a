"""The `bpf` part of a tc command: classic bytecode, an object file, or a pinned program.

Source:  lib/bpf_legacy.c of iproute2: its modes, its words. Paper, "Front End".
Differs: an object file may be a C source; a section that is not named is "classifier" (or "action"), or else the only
         program there is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcbpf import filekind
from tcbpf.control.args import LOCAL, Quit, Words, matches
from tcbpf.errors import CompileError, InputError, NotSupported, SysError, VerifierError
from tcbpf.tables.opcodes import MAX_INSNS, MAX_INSNS_UNPRIVILEGED
from tcbpf.tc.kinds.command import Ready
from tcbpf.tc.kinds.program import Bytecode

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath, Prog
    from tcbpf.datapath.loader import Differs, Loaded, OwnerDiffers
    from tcbpf.maps.map import Map
    from tcbpf.obj.program import Object

DEFAULT_SECTION = {"sched_cls": "classifier", "sched_act": "action"}
UNPARSED, UNLOADED = "Unable to parse bpf command line", "Unable to load program"
TYPES = (("cls", "sched_cls"), ("act", "sched_act"))
LOG_SHOWN = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a program, as a command names it. mode: "bytecode", "bytecode-file", "object", "pinned"."""

    mode: str
    value: str
    section: str = ""
    program: str = ""
    export: str = ""
    verbose: bool = False
    type: str = "sched_cls"


def read_source(words: Words, type: str = "sched_cls", *, typed: bool = False) -> Source:
    """Take the mode, its file and its options; `typed` also takes `type cls|act`.

    Raises:  Quit.
    """
    word = words.take()
    if matches(word, "bytecode") or word == "bc":
        return Source("bytecode", words.take(), type=type)
    if matches(word, "bytecode-file") or word == "bcf":
        return Source("bytecode-file", words.take(), type=type)
    if matches(word, "object-file") or word == "obj":
        mode = "object"
    elif matches(word, "object-pinned") or matches(word, "pinned") or word == "fd":
        mode = "pinned"
    else:
        raise Quit(
            LOCAL,
            f'What mode is "{word}"?',
            UNPARSED,
            "Usage: ... object-file FILE | object-pinned FILE | bytecode 's,c t f k,...' | bytecode-file FILE",
        )
    value = words.take()
    if typed and words.accept("type", prefix=True):
        kind = words.take()
        found = next((name for word, name in TYPES if matches(kind, word)), None)
        if found is None:
            raise Quit(LOCAL, f'What type is "{kind}"?', UNPARSED, "Usage: ... type cls|act")
        type = found
    section = words.take() if words.accept("section", prefix=True) else ""
    program = words.take() if words.accept("program") else ""
    export = os.environ.get("TC_BPF_UDS", "") or (words.take() if words.accept("export", prefix=True) else "")
    verbose = words.accept("verbose", prefix=True)
    return Source(mode, value, section, program, export, verbose, type)


def prepare(dp: Datapath, source: Source) -> Ready:
    """Return the program of a source, loaded where it is one.

    Raises:  Quit with tc's words.
    """
    if source.mode == "bytecode":
        return Ready(bytecode=read_bytecode(source.value))
    if source.mode == "bytecode-file":
        try:
            with open(source.value, encoding="ascii", errors="replace") as file:
                text = file.read()
        except OSError as error:
            raise Quit(LOCAL, f"Cannot fopen: {error.strerror}", UNPARSED) from None
        return Ready(bytecode=read_bytecode(re.sub(r",?\n+", ",", text)))
    if source.mode == "pinned":
        return Ready(open_pinned(dp, source), name=f"{os.path.basename(source.value)}:[*fsobj]")
    loaded, section = load_object(dp, source)
    if source.export:
        from tcbpf.cli.tc.map_socket import send_maps

        send_maps(source.export, source.value, loaded)
    if source.program:  # tc names the section that it would have taken
        section = source.section or DEFAULT_SECTION[source.type]
    return Ready(loaded.prog, name=f"{os.path.basename(source.value)}:[{section}]")


def read_bytecode(text: str) -> Bytecode:
    """Return the instructions of "s,c t f k,c t f k,...", all decimal.

    Raises:  Quit.
    """
    head = re.match(r"\s*(\d+),", text)
    top = MAX_INSNS_UNPRIVILEGED
    if head is None or not 0 < (length := int(head[1])) <= top:
        raise Quit(LOCAL, UNPARSED, f"Usage: 's,c t f k,...' in decimal, s the number of instructions (1 to {top})")
    code: list[tuple[int, int, int, int]] = []
    parts = text[head.end() :].split(",")
    for part in parts if parts[-1] else parts[:-1]:
        if len(code) == length:
            raise Quit(LOCAL, "Real program length exceeds encoded length parameter!", UNPARSED)
        fields = [int(word) for word in part.split() if re.fullmatch(r"-?\d+", word, re.ASCII)]
        limits = (0xFFFF, 255, 255, 0xFFFFFFFF)
        if (
            not len(part.split()) == len(fields) == 4
            or any(n > m for n, m in zip(fields, limits, strict=True))
            or (min(fields[:3]) < 0 or fields[3] < -1 << 31)
        ):
            raise Quit(LOCAL, f"Error at instruction {len(code)}!", UNPARSED)
        code.append((fields[0], fields[1], fields[2], fields[3] & 0xFFFFFFFF))
    if len(code) != length:
        raise Quit(LOCAL, "Parsed program length is less than encoded length parameter!", UNPARSED)
    return tuple(code)


def open_pinned(dp: Datapath, source: Source) -> Prog:
    """Return a pinned program.

    Raises:  Quit.
    """
    from tcbpf.maps.map import Map

    path, last = bpffs_path(source.value), UNPARSED
    try:
        found = dp.obj_get(path)
    except SysError as error:
        raise Quit(LOCAL, f"Couldn't retrieve pinned program '{source.value}': {error.strerror}", last) from None
    if isinstance(found, Map):
        raise Quit(LOCAL, f"Couldn't retrieve pinned program '{source.value}': it is a map", last)
    if found.type != source.type:
        raise Quit(LOCAL, f"Pinned program '{source.value}' is of type {found.type}, not {source.type}", last)
    return found


def bpffs_path(path: str) -> str:
    """Return a path of the bpf fs: "m:globals/x" is below tc's own directory."""
    from tcbpf.datapath.pins import WORK_DIR

    return f"{WORK_DIR}/{path[2:]}" if path.startswith("m:") else path


def load_object(dp: Datapath, source: Source, maps: dict[str, Map] | None = None) -> tuple[Loaded[Prog], str]:
    """Return a loaded object and the section of its program.

    Raises:  Quit: a verdict of the verifier as the paper's loader reports it.
    """
    from tcbpf.datapath.loader import OwnerDiffers, PinDiffers, load
    from tcbpf.datapath.pins import read_scopes
    from tcbpf.obj.link import SectionError, choose

    last = UNLOADED
    try:
        obj = read_object(source.value)
        section = "" if source.program else source.section or default_section(obj, source.type)
        chosen = choose(obj, section, source.program)
        scopes, remarks = read_scopes()
        obj, unpinned = without_unnamed(obj, scopes)
        remarks += unpinned
        loaded = load(
            dp,
            obj,
            section=section,
            program=source.program,
            type=source.type,
            scopes=scopes,
            maps=maps,
            log_level=2 if source.verbose else 0,
        )
    except VerifierError as error:
        raise Quit(LOCAL, *verdict(error.section or chosen.section, source, obj, error), last) from None
    except CompileError as error:
        raise Quit(LOCAL, error.diagnostics.rstrip("\n") or str(error), last) from None
    except InputError as error:
        hint = f" ({error.hint})" if error.hint and not (source.section or source.program) else ""
        where = f"{error.where}: " if error.where and not isinstance(error, SectionError) else ""
        raise Quit(LOCAL, f"{where}{error.what}{hint}", last) from None
    except PinDiffers as error:
        raise Quit(LOCAL, *pin_report(error.rows), f"Map '{error.name}' self-check failed!", last) from None
    except OwnerDiffers as error:
        raise Quit(LOCAL, *owner_report(error), f"Error: {error}", last) from None
    except (SysError, NotSupported) as error:
        raise Quit(LOCAL, f"Error: {error}", last) from None
    for line in [*remarks, *lost_tails(obj, loaded)]:
        print(line, file=sys.stderr)
    if source.verbose:
        sys.stdout.writelines(f"{note}\n" for note in obj.notes)
        print(f"\nProg section '{chosen.section}' loaded ({loaded.prog.fileno()})!", file=sys.stderr)
        print(about(source, obj, section_size(obj, chosen.section)), file=sys.stderr)
        print(f"Verifier analysis:\n\n{loaded.prog.log}", file=sys.stderr)
    return loaded, chosen.section


def without_unnamed(obj: Object, scopes: Mapping[int, str]) -> tuple[Object, list[str]]:
    """Return the object with the maps unpinned whose pinning scope nothing names, and a warning for each."""
    from tcbpf.obj.program import PIN_GLOBAL_NS

    lost = [spec for spec in obj.maps.values() if spec.pinning > PIN_GLOBAL_NS and spec.pinning not in scopes]
    if not lost:
        return obj, []
    warnings = [
        f"Warning: map {spec.name} is not pinned: no line of /etc/iproute2/bpf_pinning names scope {spec.pinning}"
        for spec in lost
    ]
    return replace(obj, maps=dict(obj.maps) | {spec.name: replace(spec, pinning=0) for spec in lost}), warnings


def pin_report(rows: Sequence[Differs]) -> list[str]:
    """Return the lines that compare a pinned map with the object's; types by number."""
    from tcbpf.tables.maps import MAP_TYPES

    def number(word: str, value: str) -> str:
        row = MAP_TYPES.get(value) if word == "Type" else None
        return str(row.number) if row else value

    lines = [f" - {f'{word}:':<14}{number(word, mine)} (obj) != {number(word, theirs)} (pin)" for word, mine, theirs in rows]
    return ["Map specification differs from pinned file!", *lines, ""]


def owner_report(error: OwnerDiffers) -> list[str]:
    """Return the line for a program array that refuses a program; types by number."""
    if error.filling:
        return [f"Tail call map owned by prog type {error.owner}, but prog type is {error.wanted}!"]
    return [owner_types(error.wanted, error.owner)]


def owner_types(wanted: int, owner: int) -> str:
    """Return the line for a program array whose programs have another type than the object's."""
    return f"Program array map owner types differ: {wanted} (obj) != {owner} (pin)"


def lost_tails(obj: Object, loaded: Loaded[Prog]) -> list[str]:
    """Return a warning for each program array that loses its programs when this command ends."""
    from tcbpf.tables.maps import OF_PROGRAMS

    return [
        f"Warning: program array {name} is not pinned: it is emptied when its last user goes, that is now; "
        "give it pinning = PIN_OBJECT_NS or PIN_GLOBAL_NS"
        for name, spec in obj.maps.items()
        if spec.type in OF_PROGRAMS and loaded.tails and not spec.pinning
    ]


def read_object(path: str) -> Object:
    """Return the Object of an object file or a C source.

    Raises:  InputError; ObjectError; CompileError.
    """
    if not os.path.isfile(path):
        raise InputError("no such file", where=path, hint="a BPF object file or a C source")
    if filekind.of_path(path) in filekind.SOURCES:
        from tcbpf.lang import compile

        return compile(path)
    from tcbpf.obj import load

    return load(path)


def default_section(obj: Object, type: str) -> str:
    """Return the section to load by default: tc's, if the object has it, else "" for the only one."""
    named = DEFAULT_SECTION.get(type, "classifier")
    sections = {obj.functions[name].section for name in obj.entries}
    return named if named in sections or len(obj.entries) != 1 else ""


def verdict(section: str, source: Source, obj: Object, error: VerifierError) -> list[str]:
    """Return the report of a program that the verifier refused."""
    log = error.log.rstrip("\n")
    shown = [log] if log else [str(error)]
    if not source.verbose and len(log) > LOG_SHOWN:
        skipped = f"Skipped {len(log) - LOG_SHOWN} bytes, use 'verb' option for the full verbose log."
        shown = [skipped, "[...]", log[-LOG_SHOWN:]]
    insns = section_size(obj, section)
    head = [f"\nProg section '{section}' rejected: {os.strerror(error.errno)} ({error.errno})!", about(source, obj, insns)]
    return [*head, "Verifier analysis:", "", *shown]


def section_size(obj: Object, section: str) -> int:
    """Count the slots of a section's entry programs."""
    return sum(len(obj.functions[name].insns) for name in obj.entries if obj.functions[name].section == section)


def about(source: Source, obj: Object, insns: int) -> str:
    """Return the description of a program in a report: type, size and licence."""
    from tcbpf.tables.progs import PROG_TYPES

    over = max(0, insns - MAX_INSNS)
    return (
        f" - Type:         {PROG_TYPES[source.type].number}\n - Instructions: {insns} ({over} over limit)\n"
        f" - License:      {obj.license}\n"
    )
