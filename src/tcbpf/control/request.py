"""One request to a datapath: a verb and an object."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tcbpf.control.objects import TcObject


class Op(Enum):
    """The verb, in tc(8)'s words; each stands for an rtnetlink message type and its flags."""

    ADD = "add"  # NEW, CREATE|EXCL
    REPLACE = "replace"  # NEW, CREATE|REPLACE
    CHANGE = "change"  # NEW
    LINK = "link"  # NEW, REPLACE: a qdisc that is there, put elsewhere
    DELETE = "delete"
    GET = "get"
    SHOW = "show"  # dump: the object's set fields select (dev, parent, chain, ...)


@dataclass(frozen=True, slots=True)
class Request:
    """`op` on `object`; `apply` returns the objects of the answer, none for ADD, REPLACE, CHANGE, LINK and DELETE."""

    op: Op
    object: TcObject
