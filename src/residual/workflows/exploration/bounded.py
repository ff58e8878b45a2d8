"""What is made once and kept: parts of an object that are made when they are first asked for, each by one
thread; and a cache that holds no more than so many bytes, the least used going first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock, RLock
from typing import Any, Generic, TypeVar, overload

from torch import Tensor

from residual.errors import ResidualError

Made = TypeVar("Made")


class ByKey:
    """Values that are each made once, by one thread, while others wait for that one alone; see `once`."""

    def __init__(self):
        self._made: dict[Hashable, _Entry] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The value of a key, made if it isn't there."""
        with self._lock:
            entry = self._made.setdefault(key, _Entry())
        with entry.lock:
            if not entry.done:
                try:
                    entry.value = make()
                except ResidualError as error:
                    entry.error = error
                entry.done = True
        if entry.error is not None:
            raise entry.error.with_traceback(None)
        return entry.value

    def __contains__(self, key: Hashable) -> bool:
        """Whether it is made already."""
        with self._lock:
            entry = self._made.get(key)
        return entry is not None and entry.done


class _Entry:
    def __init__(self):
        self.lock, self.done = RLock(), False
        self.value: Any = None
        self.error: ResidualError | None = None


class once(Generic[Made]):  # noqa: N801 - used as `cached_property` is
    """A property that is made when it is first read, by one thread, while others wait for that one alone.

    A `ResidualError` is kept and raised again: what failed for its input fails again, and takes its time.
    """

    def __init__(self, make: Callable[[Any], Made]):
        self.make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, of: None, owner: type) -> once[Made]: ...
    @overload
    def __get__(self, of: object, owner: type) -> Made: ...
    def __get__(self, of: Any, owner: type) -> Any:
        """The property of an object."""
        if of is None:
            return self
        return of.__dict__.setdefault("made once", ByKey()).get(self.name, lambda: self.make(of))


def tried(make: Callable[[], Made]) -> Made | ResidualError:
    """What is made, or why it can't be."""
    try:
        return make()
    except ResidualError as error:
        return error


class Bounded(Generic[Made]):
    """Values by key, of `most` bytes together; what is larger is made each time. Threads may share it.

    Args:
        most: bytes.
        size: of a value; by default that of a tensor.
    """

    def __init__(self, most: int, size: Callable[[Made], int] | None = None):
        self.most, self.held = most, 0
        self._size, self._lock = size or _bytes_of, Lock()
        self._kept: OrderedDict[Hashable, tuple[Made, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The value of a key, made if it isn't there; two threads may make the same one."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        value = make()
        self.put(key, value)
        return value

    def put(self, key: Hashable, value: Made) -> None:
        """Keep a value, if it isn't larger than all that may be kept."""
        size = self._size(value)
        if size > self.most:
            return
        with self._lock:
            if key in self._kept:
                self.held -= self._kept.pop(key)[1]
            self._kept[key] = value, size
            self.held += size
            while self.held > self.most:
                _, (_, gone) = self._kept.popitem(last=False)
                self.held -= gone

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._kept


def _bytes_of(value: Any) -> int:
    return value.nbytes if isinstance(value, Tensor) else len(value)
