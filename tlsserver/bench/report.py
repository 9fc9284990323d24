"""The result in words, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLUMNS = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "max"}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Give the lines of the table.

    Args:
        result: As `--json` prints it.
    """
    kind = f"{result['resumed']:,} of them resumed" if result["resume"] else "all of them full"
    cpu = result["client_cpu_us_per_handshake"]
    yield f"target       {result['target']}, {about(result)}"
    yield f"load         {result['concurrency']:,} at a time, {result['seconds']:.1f} s"
    yield f"handshakes   {result['handshakes']:,}, {kind}"
    yield f"rate         {result['handshakes_per_second']:,.0f} a second"
    if cpu is not None:
        yield f"generator    {cpu:.0f} us of processor time a handshake"
    for label, kind in _labelled(result["errors"]):
        yield f"{label:<12} {kind}"
    yield from _latencies(result)


def about(result: dict[str, Any]) -> str:
    """Name what was agreed on."""
    return ", ".join([f"TLS {result['tls']}", *filter(None, (result["cipher"], result["group"]))])


def _labelled(errors: dict[str, int]) -> Iterator[tuple[str, str]]:
    if not errors:
        yield "errors", "none"
    for number, (kind, count) in enumerate(errors.items()):
        yield "" if number else "errors", f"{count:,} {kind}"


def _latencies(result: dict[str, Any]) -> Iterator[str]:
    rows = {"handshake": result["latency_ms"], "answer": result["response_ms"]}
    if result["latency_ms"] is None:
        return
    yield ""
    yield f"{'ms from connect':<16}" + "".join(f"{title:>10}" for title in _COLUMNS.values())
    for label, row in rows.items():
        if row is not None:
            yield f"{label:<16}" + "".join(f"{row[name]:>10.2f}" for name in _COLUMNS)
