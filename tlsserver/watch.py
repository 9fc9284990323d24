"""What a connection asks of the loop that drives it. A leaf."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["WaitFd", "Watch"]


class WaitFd(NamedTuple):
    """A wait fd, told from earlier descriptors that had its number.

    Attributes:
        number: The descriptor.
        generation: Differs within a connection whenever the engine may have opened the descriptor anew.
        serial: No other descriptor ever has it, whoever shows it; 0: that cannot be told.
    """

    number: int
    generation: int
    serial: int = 0


class Watch(NamedTuple):
    """What a driver looks out for, until it asks again.

    A connection that waits for a job asks for nothing: `tlsserver.jobs.JobQueue` calls it.

    Attributes:
        read: Call `Connection.readable` when the socket is readable.
        write: Call `Connection.writable` when the socket is writable.
        wait_fds: Call `Connection.resume` when one of these is readable. One with another generation than before is
            to be registered anew: epoll has silently dropped a descriptor that was closed.
        deadline: Call `Connection.expire` at this time; None: never.
        again: Call `Connection.turn` in the next turn, whatever the socket says.
    """

    read: bool = False
    write: bool = False
    wait_fds: tuple[WaitFd, ...] = ()
    deadline: float | None = None
    again: bool = False
