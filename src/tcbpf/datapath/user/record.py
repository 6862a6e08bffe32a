"""Control values as JSON and back, for the state file."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from tcbpf.control import objects

_KINDS = {
    kind.__name__: kind
    for kind in (objects.Action, objects.Bpf, objects.Filter, objects.Link, objects.Qdisc, objects.Stats, objects.TcClass)
}


def encode(value: object) -> str:
    """Return a control value, or a tuple of them, as one line of JSON; fields that have their default are left out."""
    return json.dumps(_plain(value), separators=(",", ":"))


def decode(text: str) -> Any:
    """Return the control value that `encode` made a line of."""
    return _value(json.loads(text))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        given = {f.name: getattr(value, f.name) for f in fields(value) if f.name != "prog"}
        return {"": type(value).__name__, **{name: _plain(v) for name, v in given.items()}}
    if isinstance(value, bytes):
        return {"": "bytes", "hex": value.hex()}
    if isinstance(value, dict):
        return {"": "dict", "items": [[_plain(k), _plain(v)] for k, v in value.items()]}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_value(item) for item in plain)
    if not isinstance(plain, dict):
        return plain
    kind = plain.pop("")
    if kind == "bytes":
        return bytes.fromhex(plain["hex"])
    if kind == "dict":
        return {_value(k): _value(v) for k, v in plain["items"]}
    made = _KINDS[kind]
    known = {f.name for f in fields(made)}
    return made(**{name: _value(v) for name, v in plain.items() if name in known})
