"""One request to net/sched: which verb of which object."""

from __future__ import annotations

from tcbpf.control.objects import Action, Actions, Chain, Filter, Link, Qdisc, TcClass, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.errors import InternalError, NotSupported
from tcbpf.tc import action, chain, filter, klass, link, qdisc
from tcbpf.tc.state import State, describe


def apply(state: State, request: Request) -> tuple[State, tuple[TcObject, ...]]:
    """Return the State after a request, and what the answer holds.

    Raises:  TcError with the kernel's errno and words; the State given is then still the one that counts.
    """
    thing, op = request.object, request.op
    asked = describe(op.value, thing)
    if op in (Op.SHOW, Op.GET):
        return state, answer(state, op, thing, asked)
    if op is Op.DELETE:
        return action.swept(removed(state, thing, asked), state), ()
    return action.swept(written(state, op, thing, asked), state), ()


def answer(state: State, op: Op, thing: TcObject, asked: str) -> tuple[TcObject, ...]:
    """Return the objects that a SHOW or GET asks for."""
    match thing:
        case Link():
            return link.show(state, thing, asked)
        case Qdisc():
            return qdisc.show(state, thing, asked)
        case TcClass():
            return klass.show(state, thing, asked)
        case Filter():
            return filter.get(state, thing, asked) if op is Op.GET else filter.show(state, thing, asked)
        case Chain():
            return chain.get(state, thing, asked) if op is Op.GET else chain.show(state, thing, asked)
        case Action():
            return action.show(state, thing, asked)
        case Actions():
            return tuple(found for one in thing.rows for found in action.show(state, one, asked))
    raise InternalError(f"nothing shows {thing!r}")


def written(state: State, op: Op, thing: TcObject, asked: str) -> State:
    """Return the State after ADD, REPLACE or CHANGE."""
    match thing:
        case Link() if op is Op.ADD:
            return link.add(state, thing, asked)
        case Link() if op is Op.CHANGE:
            return link.change(state, thing, asked)
        case Link():
            raise NotSupported(f"{asked}: a device is added, changed or deleted")
        case Qdisc():
            return qdisc.write(state, op, thing, asked)
        case TcClass():
            return klass.write(state, op, thing, asked)
        case Filter():
            return filter.write(state, op, thing, asked)
        case Chain() if op is Op.ADD:
            return chain.add(state, thing, asked)
        case Chain():
            raise NotSupported(f"{asked}: a chain is added or deleted")
        case Action():
            return action.write(state, op, thing, asked)
        case Actions():
            for one in thing.rows:
                state = action.write(state, op, one, asked)
            return state
    raise InternalError(f"nothing writes {thing!r}")


def removed(state: State, thing: TcObject, asked: str) -> State:
    """Return the State after DELETE."""
    match thing:
        case Link():
            return link.delete(state, thing, asked)
        case Qdisc():
            return qdisc.delete(state, thing, asked)
        case TcClass():
            return klass.delete(state, thing, asked)
        case Filter():
            return filter.delete(state, thing, asked)
        case Chain():
            return chain.delete(state, thing, asked)
        case Action():
            return action.delete(state, thing, asked)
        case Actions():
            for one in thing.rows:
                state = action.delete(state, one, asked)
            return state
    raise InternalError(f"nothing deletes {thing!r}")
