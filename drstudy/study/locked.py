"""Snakemake under a lock of its own, which lasts as long as it works: ``python -m drstudy.study.locked LOCK-FILE ARGUMENTS``.

`drstudy reproduce` holds a lock too. If only that command is killed, Snakemake and its stages may go on; this lock keeps the next
`drstudy reproduce` from starting beside them. No descriptor needs to be inherited for it, which Windows cannot do.
"""

from __future__ import annotations

import runpy
import sys
from contextlib import ExitStack

from drstudy.core import paths


def main() -> None:
    """Run Snakemake in this process while the lock is held.

    Raises:
        SystemExit: With what Snakemake exits with; with a message if another process holds the lock.
    """
    lock, *sys.argv[1:] = sys.argv[1:]
    with ExitStack() as held:
        try:
            held.enter_context(paths.locked(lock, wait=False))
        except BlockingIOError as error:
            sys.exit(f"{error} Wait for it or stop it.")
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
