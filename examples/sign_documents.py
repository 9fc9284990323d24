"""Sign a thousand documents on one thread with a key that takes 200 ms: `python examples/sign_documents.py key.pem`.

Each signature is a job. A job that asked for the key is paused, and its wait context's fd becomes readable when it
should be resumed; meanwhile this thread starts the others.
"""

from __future__ import annotations

import selectors
import sys
import time

import engine_shim
from engine_shim import Job, JobStatus

LATENCY = 0.2
DOCUMENTS = [b"document %d" % number for number in range(1000)]


def sign_all(key: engine_shim.Key, documents: list[bytes]) -> list[bytes]:
    signatures = [b""] * len(documents)
    with selectors.DefaultSelector() as selector:
        left = 0
        for index, document in enumerate(documents):
            job = Job(key.sign, document)
            left += advance(selector, job, index, signatures)
        while left:
            for ready, _ in selector.select():
                if selector.get_map().get(ready.fd) is None:
                    continue  # another fd of the same job has resumed it
                job, index, fds = ready.data
                for fd in fds:  # resumed, it may wait for others, or for none
                    selector.unregister(fd)
                left -= 1 - advance(selector, job, index, signatures)
    return signatures


def advance(selector: selectors.BaseSelector, job: Job, index: int, signatures: list[bytes]) -> int:
    """Start or resume; 1 if it is paused, 0 if it has come to its end."""
    if job.start() is JobStatus.PAUSED:
        fds = job.wait_context.get_all_fds()
        for fd in fds:
            selector.register(fd, selectors.EVENT_READ, (job, index, fds))
        return 1
    signatures[index] = job.result()
    return 0


def main(path: str) -> None:
    with engine_shim.LatencyEngine(LATENCY) as engine:
        begun = time.monotonic()
        signatures = sign_all(engine.load_key(path), DOCUMENTS)
        seconds = time.monotonic() - begun
    assert all(signatures)
    print(f"{len(signatures)} documents signed in {seconds:.2f} s; one after another: {len(DOCUMENTS) * LATENCY:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
