"""What a connection asks of the loop that drives it. A leaf."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Watch"]


class Watch(NamedTuple):
    """What a driver looks out for, until it asks again.

    Attributes:
        read: Call `Connection.readable` when the socket is readable.
        write: Call `Connection.writable` when the socket is writable.
        wait_fds: Call `Connection.resume` when one of these is readable.
        deadline: Call `Connection.expire` at this time; None: never.
        again: Call `Connection.turn` in the next turn, whatever the socket says.
        queued: Call `Connection.resume` when a job of another connection has ended.
    """

    read: bool = False
    write: bool = False
    wait_fds: tuple[int, ...] = ()
    deadline: float | None = None
    again: bool = False
    queued: bool = False
