"""The shim's own counters: what it made, and what it has not given back."""

from __future__ import annotations

from dataclasses import dataclass

from engine_shim.native import ffi, lib


@dataclass(frozen=True)
class Counters:
    """Counts since the start of the process, and objects alive now.

    Attributes:
        jobs_started: Jobs that an AsyncSSL started.
        jobs_finished: Jobs that ran to their end; equals jobs_started whenever none is paused.
        jobs_abandoned: Jobs left behind by a fork, or by a garbage collector on another thread.
        pauses: Times that a job was paused.
        wait_fds_open: Wait fds (eventfds) open now, pooled ones too.
        ops_alive: Ops not yet freed.
        keys_alive: Wrapped keys not yet freed.
        engines_alive: Engines not yet freed.
        stacks_alive: Guarded stacks mapped now, those of OpenSSL's pool of jobs too.
        x25519_made: X25519 key pairs computed ahead of need.
        x25519_used: Of those, given to key exchanges.
        x25519_ahead: X25519 key pairs that wait for their key exchange now.
        key_log_lines: Lines written to key logs.
        key_log_failures: Lines that could not be written.
    """

    jobs_started: int
    jobs_finished: int
    jobs_abandoned: int
    pauses: int
    wait_fds_open: int
    ops_alive: int
    keys_alive: int
    engines_alive: int
    stacks_alive: int
    x25519_made: int
    x25519_used: int
    x25519_ahead: int
    key_log_lines: int
    key_log_failures: int


def counters() -> Counters:
    """Take a snapshot of the shim's counters; any thread."""
    raw = ffi.new("struct shim_counters *")
    lib.shim_counters(raw)
    return Counters(**{name: getattr(raw, name) for name in Counters.__dataclass_fields__})
