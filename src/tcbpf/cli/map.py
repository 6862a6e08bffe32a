"""`tcbpf map`: read and write maps, while programs use them, from another process too."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import sys
from collections.abc import Iterable
from typing import Any

from tcbpf.cli.arguments import add_datapath, add_json
from tcbpf.cli.output import one_line, table
from tcbpf.datapath.base import Datapath
from tcbpf.datapath.choose import chosen_name, open_datapath
from tcbpf.errors import ENOTSUPP, InputError, MapError, NotSupported
from tcbpf.maps.map import BPF_ANY, BPF_EXIST, BPF_NOEXIST, Map
from tcbpf.maps.records import READABLE
from tcbpf.obj.program import MapSpec
from tcbpf.tables.maps import MAP_TYPES

WORDS = """\
MAP is an id, a name, or the path of a pin; "id N", "name NAME" and "pinned PATH" say which.
KEY and VALUE are numbers, addresses or JSON, by the map's BTF; with --hex, bytes.

  show [MAP]                      list the maps
  dump MAP                        all elements
  lookup MAP [key] KEY            one element
  update MAP [key] KEY [value] VALUE [any|noexist|exist]
  delete MAP [key] KEY
  push MAP [value] VALUE          into a queue, a stack or a bloom filter
  peek MAP | pop MAP              the next value of a queue or a stack; pop takes it out
  records MAP [TYPE]              take a ring buffer's records; --follow waits for more
  create PATH --type T --key N --value N --entries N [--flags F]
                                  a map, pinned at PATH
  pin MAP PATH                    give it a name in the bpf fs
  unpin PATH                      take the name away
"""
FLAGS = {"any": BPF_ANY, "noexist": BPF_NOEXIST, "exist": BPF_EXIST}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = WORDS
    parser.add_argument(
        "what",
        choices=(
            "show",
            "list",
            "dump",
            "lookup",
            "update",
            "delete",
            "push",
            "peek",
            "pop",
            "records",
            "create",
            "pin",
            "unpin",
        ),
    )
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--hex", action="store_true", help="keys and values are bytes, in hexadecimal")
    parser.add_argument("--follow", action="store_true", help="records: go on until interrupted")
    parser.add_argument("--home", default="", metavar="DIR", help="the user datapath's directory")
    parser.add_argument("--type", default="hash", metavar="T", help="create: " + ", ".join(m.name for m in MAP_TYPES if m.user))
    for name in "key", "value", "entries":
        parser.add_argument(f"--{name}", type=int, default=4 if name != "entries" else 1, metavar="N", help="create: its size")
    parser.add_argument("--flags", type=lambda text: int(text, 0), default=0, metavar="F", help="create: BPF_F_*")
    add_json(parser)
    add_datapath(parser)


def main(args: argparse.Namespace) -> int:
    """Run one subcommand; return 1 when there is no such element."""
    words = list(args.words)
    with open_datapath(args.datapath, home=args.home, lasting=True) as dp:
        if args.what == "create":
            return create(dp, args, words)
        if args.what == "unpin":
            dp.obj_unpin(take(words, "PATH"))
            finish(words)
            return 0
        if args.what in ("show", "list") and not words:
            return show(dp.all_maps(), args)
        found = take_map(dp, words, f"{chosen_name(args.datapath)} datapath")
        if args.what in ("show", "list"):
            return show([found], args)
        if args.what == "pin":
            dp.obj_pin(take(words, "PATH"), found)
            return 0
        if args.what in ("push", "peek", "pop"):
            return keyless(found, args, words)
        if args.what == "records":
            return records(found, args, words)
        return element(found, args, words)


def keyless(found: Map, args: argparse.Namespace, words: list[str]) -> int:
    """Run push, pop or peek on a queue or stack; return 1 if it is empty."""
    if args.what == "push":
        value = read(found, take(words, "VALUE", after="value"), args.hex, "value")
        finish(words)
        found.update(b"", value)
        return 0
    finish(words)
    taken = found.raw.lookup(b"") if args.what == "peek" else found.raw.pop(b"")
    if taken is None:
        print(f"tcbpf: map {found.spec.name} is empty", file=sys.stderr)
        return 1
    return show_one(found, b"", taken, args)


def records(found: Map, args: argparse.Namespace, words: list[str]) -> int:
    """Take and print the records of a map; with --follow, wait for more."""
    type = " ".join(words)
    if type and args.hex:
        raise InputError(f"unexpected argument {type!r}", where="map records --hex", hint="bytes have no type")
    with found.records(type) as reader, contextlib.suppress(KeyboardInterrupt):
        record = reader.wait(None if args.follow else 0)
        while record is not None:
            print(json.dumps(jsonable(record), default=str) if args.json else one_line(record), flush=True)
            record = reader.wait(None if args.follow else 0)
    if reader.lost:
        print(f"tcbpf: map {found.spec.name}: {reader.lost} records found no room", file=sys.stderr)
    return 0


def element(found: Map, args: argparse.Namespace, words: list[str]) -> int:
    """Run dump, lookup, update or delete."""
    if not found.spec.key_size:
        verbs = "records" if found.spec.type in READABLE else "push" if found.spec.type == "bloom_filter" else "push, peek, pop"
        how = f"tcbpf map {verbs}"
        raise InputError(f"a {found.spec.type} has no keys", where=f"map {args.what} {found.spec.name}", hint=how)
    if args.what == "dump":
        finish(words)
        return dump(found, args)
    key = read(found, take(words, "KEY", after="key"), args.hex, "key")
    if args.what == "lookup":
        finish(words)
        value = found.lookup(key)
        return absent(found, key) if value is None else show_one(found, key, value, args)
    if args.what == "delete":
        finish(words)
        return 0 if found.delete(key) else absent(found, key)
    value = read(found, take(words, "VALUE", after="value"), args.hex, "value", key)
    flags = words.pop(0) if words else "any"
    finish(words)
    if flags not in FLAGS:
        raise InputError(f"flag {flags!r}", where="map update", hint=", ".join(FLAGS))
    found.update(key, value, FLAGS[flags])
    return 0


def take(words: list[str], what: str, *, after: str = "") -> str:
    """Return the next word; `what` names it in messages, and the keyword `after` may precede it."""
    if after and words[:1] == [after]:
        words.pop(0)
    if not words:
        raise InputError(f"{what} is missing", where="map", hint="tcbpf map --help shows the words")
    return words.pop(0)


def finish(words: list[str]) -> None:
    """Raise InputError when arguments are left over."""
    if words:
        raise InputError(f"unexpected argument {words[0]!r}", where="map", hint="quote a key or value that has blanks")


def take_map(dp: Datapath, words: list[str], where: str) -> Map:
    """Return the map that the first words name; messages call the datapath `where`.

    Raises:  InputError when there is none, or there are several.
    """
    word = take(words, "MAP")
    how = word if word in ("id", "name", "pinned") and words else ""
    word = words.pop(0) if how else word
    if how == "pinned" or (not how and "/" in word):
        found = dp.obj_get(word)
        if not isinstance(found, Map):
            raise InputError("is a program, not a map", where=word)
        return found
    every = list(dp.all_maps())
    if how == "id" or (not how and word.isdigit()):
        chosen = [m for m in every if str(m.raw.id) == word]
    else:
        chosen = [m for m in every if m.spec.name == word or m.spec.name[:15] == word[:15] == word]
    if not chosen:
        known = ", ".join(f"{m.raw.id} {m.spec.name}" for m in every[:8])
        raise InputError(f"no map {word!r}", where=where, hint=f"there are {known}" if known else "there is none")
    if len(chosen) > 1:
        raise InputError(
            f"{len(chosen)} maps are called {word!r}",
            where=where,
            hint="say the id: " + ", ".join(str(m.raw.id) for m in chosen),
        )
    return chosen[0]


def read(found: Map, text: str, hex: bool, what: str, key: bytes = b"") -> bytes:
    """Return the bytes of the key or value that `text` spells.

    Raises:  InputError with an example.
    """
    if hex:
        try:
            return bytes.fromhex(text.replace("0x", "").replace(":", " "))
        except ValueError:
            raise InputError(f"{text!r} is not hexadecimal", where=f"map {found.spec.name} {what}", hint="00 0a ff") from None
    typed = typed_word(text)
    return found.encode_key(typed) if what == "key" else found.encode_value(typed, key)


def typed_word(text: str) -> Any:
    """Return a word as a number, as JSON, or unchanged."""
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except ValueError:
        return text


def absent(found: Map, key: bytes) -> int:
    """Report a missing element, and return the exit status."""
    print(f"tcbpf: map {found.spec.name}: no element of key {one_line(found.decode_key(key))}", file=sys.stderr)
    return 1


def show(maps: Iterable[Map], args: argparse.Namespace) -> int:
    """Print the maps' properties."""
    rows = [
        {
            "id": m.raw.id,
            "name": m.spec.name,
            "type": m.spec.type,
            "key_size": m.spec.key_size,
            "value_size": m.spec.value_size,
            "max_entries": m.spec.max_entries,
            "flags": m.spec.flags,
        }
        for m in maps
    ]
    if args.json:
        print(json.dumps(rows))
    else:
        table(("id", "name", "type", "key", "value", "entries", "flags"), [[*row.values()] for row in rows])
    return 0


def dump(found: Map, args: argparse.Namespace) -> int:
    """Print all elements."""
    pairs = [(key, value) for key in found.raw_keys() if (value := lookup(found, key)) is not None]
    if args.json:
        print(json.dumps([plain(found, key, value, args.hex) for key, value in pairs], default=str))
    elif args.hex:
        for key, value in pairs:
            print(f"{key.hex(' ')}  {value.hex(' ')}")
    else:
        table(
            ("key", "value"),
            [(one_line(found.decode_key(k)), one_line(found.decode_value(v))) for k, v in pairs],
            title=f"map {found.spec.name}, {found.spec.type}, {len(pairs)} of {found.spec.max_entries}",
        )
    return 0


def lookup(found: Map, key: bytes) -> bytes | None:
    """Return a value; None when the element was deleted meanwhile.

    Raises:  NotSupported for a map type that cannot be read.
    """
    try:
        return found.lookup(key)
    except MapError as error:
        if error.errno in (ENOTSUPP, errno.EOPNOTSUPP):
            raise NotSupported(f"map {found.spec.name}: a {found.spec.type} cannot be read") from None
        raise


def show_one(found: Map, key: bytes, value: bytes, args: argparse.Namespace) -> int:
    """Print one element."""
    if args.json:
        print(json.dumps(plain(found, key, value, args.hex), default=str))
    elif args.hex:
        print(value.hex(" "))
    else:
        print(one_line(found.decode_value(value)))
    return 0


def plain(found: Map, key: bytes, value: bytes, hex: bool) -> dict[str, Any]:
    """Return an element as JSON types."""
    if hex:
        return {"key": key.hex(), "value": value.hex()}
    return {"key": jsonable(found.decode_key(key)), "value": jsonable(found.decode_value(value))}


def jsonable(value: Any) -> Any:
    """Return a typed value with its bytes as hexadecimal text."""
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    return value


def create(dp: Datapath, args: argparse.Namespace, words: list[str]) -> int:
    """Create a map and pin it; unpinned, it would be freed when this command ends."""
    path = take(words, "PATH")
    finish(words)
    name = path.rstrip("/").rpartition("/")[2]
    made = dp.map_create(MapSpec(name, args.type, args.key, args.value, args.entries, args.flags))
    dp.obj_pin(path, made)
    return show([made], args)
