"""Dispatch of a request to net/sched, by verb and object."""

from __future__ import annotations

from tcbpf.control.objects import Action, Actions, Chain, Filter, Link, Qdisc, TcClass, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.errors import InternalError, NotSupported
from tcbpf.tc import action, chain, filter, klass, link, qdisc
from tcbpf.tc.state import State, describe


def apply(state: State, request: Request) -> tuple[State, tuple[TcObject, ...]]:
    """Return the State after a request, and the objects of the answer.

    Raises:  TcError with the kernel's errno and words; the State given is not changed.
    """
    thing, op = request.object, request.op
    what = describe(op.value, thing)
    if op in (Op.SHOW, Op.GET):
        return state, answer(state, op, thing, what)
    if op is Op.DELETE:
        return action.swept(removed(state, thing, what), state), ()
    return action.swept(written(state, op, thing, what), state), ()


def answer(state: State, op: Op, thing: TcObject, what: str) -> tuple[TcObject, ...]:
    """Return the objects that a SHOW or GET asks for."""
    match thing:
        case Link():
            return link.show(state, thing, what)
        case Qdisc():
            return qdisc.show(state, thing, what)
        case TcClass():
            return klass.show(state, thing, what)
        case Filter():
            return filter.get(state, thing, what) if op is Op.GET else filter.show(state, thing, what)
        case Chain():
            return chain.get(state, thing, what) if op is Op.GET else chain.show(state, thing, what)
        case Action():
            return action.show(state, thing, what)
        case Actions():
            return tuple(found for one in thing.rows for found in action.show(state, one, what))
    raise InternalError(f"nothing shows {thing!r}")


def written(state: State, op: Op, thing: TcObject, what: str) -> State:
    """Return the State after ADD, REPLACE or CHANGE."""
    match thing:
        case Link() if op is Op.ADD:
            return link.add(state, thing, what)
        case Link() if op is Op.CHANGE:
            return link.change(state, thing, what)
        case Link():
            raise NotSupported(f"{what}: a device is added, changed or deleted")
        case Qdisc():
            return qdisc.write(state, op, thing, what)
        case TcClass():
            return klass.write(state, op, thing, what)
        case Filter():
            return filter.write(state, op, thing, what)
        case Chain() if op is Op.ADD:
            return chain.add(state, thing, what)
        case Chain():
            raise NotSupported(f"{what}: a chain is added or deleted")
        case Action():
            return action.write(state, op, thing, what)
        case Actions():
            for one in thing.rows:
                state = action.write(state, op, one, what)
            return state
    raise InternalError(f"nothing writes {thing!r}")


def removed(state: State, thing: TcObject, what: str) -> State:
    """Return the State after DELETE."""
    match thing:
        case Link():
            return link.delete(state, thing, what)
        case Qdisc():
            return qdisc.delete(state, thing, what)
        case TcClass():
            return klass.delete(state, thing, what)
        case Filter():
            return filter.delete(state, thing, what)
        case Chain():
            return chain.delete(state, thing, what)
        case Action():
            return action.delete(state, thing, what)
        case Actions():
            for one in thing.rows:
                state = action.delete(state, one, what)
            return state
    raise InternalError(f"nothing deletes {thing!r}")
