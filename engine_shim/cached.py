"""Attributes that are computed once.

functools.cached_property does that under a lock of the class's until Python 3.12: threads wait for each other's
objects, and a child that was forked while another thread had the lock waits for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

__all__ = ["cached_property"]

_Value = TypeVar("_Value")


class cached_property(Generic[_Value]):  # noqa: N801 - it is written as a decorator
    """A property whose value is kept in the object's ``__dict__``; no lock: two threads may both compute it.

    Args:
        function: Computes the value.
    """

    def __init__(self, function: Callable[[Any], _Value]) -> None:
        self._function = function
        self._name = function.__name__
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> _Value: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Self | _Value:
        """Compute the value, which hides this from now on."""
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._function(instance)
        return value
