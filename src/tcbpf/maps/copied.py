"""Values read from a map: copies, in which nothing can be set, because nothing set in them would reach the map."""

from __future__ import annotations

from typing import Any, NoReturn


def _refuse(self: object, *args: object, **members: object) -> NoReturn:
    raise TypeError("this is a copy of what the map holds: set the whole value, as in map[key] = {**map[key], 'member': 1}")


class Members(dict[str, Any]):
    """A structure's members. Its `copy` is a plain dict, as is what copy.deepcopy makes of it."""

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return dict, (dict(self),)


class Elements(list[Any]):
    """An array's elements, or a per-CPU value's. Its `copy` is a plain list, as is what copy.deepcopy makes of it."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return list, (list(self),)


def copied(value: Any) -> Any:
    """Return a decoded value whose structures and arrays refuse to be changed."""
    if isinstance(value, dict):
        return Members((name, copied(member)) for name, member in value.items())
    return Elements(map(copied, value)) if isinstance(value, list) else value
