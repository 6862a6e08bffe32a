"""Objects that threads share: a closed one refuses further calls, and goes with the last call that is still inside."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcbpf.errors import SysError


class Shared:
    """Counts the calls inside an object. A method runs between `begin` and `finish`; `close` waits for none of them.

    A call enters before it looks whether the object is closed, and `close` closes before it looks whether a call is inside: so
    one of the two sees the other, without a lock on the way of a call. Appending to a list and popping from it are atomic.
    """

    def __init__(self) -> None:
        self._inside: list[None] = []
        self._closed, self._dropped, self._dropping = False, False, Lock()

    def drop(self) -> None:
        """Free what the object holds; called once, with no call inside."""
        raise NotImplementedError

    def refusal(self) -> SysError:
        """Return the error of a call on the closed object: EBADF."""
        raise NotImplementedError

    def begin(self) -> None:
        """Enter a call.

        Raises:  the refusal, of a closed object.
        """
        self._inside.append(None)
        if self._closed:
            self.finish()
            raise self.refusal()

    def finish(self) -> None:
        """Leave a call; the last one of a closed object drops it."""
        self._inside.pop()
        if self._closed:
            self._drop_if_empty()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Be inside for the block.

        Raises:  the refusal, of a closed object.
        """
        self.begin()
        try:
            yield
        finally:
            self.finish()

    def close(self) -> None:
        """Refuse further calls, and drop the object, now or with the last call inside; a second time nothing happens."""
        self._closed = True
        self._drop_if_empty()

    def _drop_if_empty(self) -> None:
        with self._dropping:
            last = not self._inside and not self._dropped
            self._dropped = self._dropped or last
        if last:
            self.drop()
