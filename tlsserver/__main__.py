"""`python -m tlsserver`."""

from __future__ import annotations

from tlsserver.cli import main

if __name__ == "__main__":
    main()
