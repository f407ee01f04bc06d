"""nbval over the committed notebooks: run again in order, every output compared unless its cell is tagged to be ignored.

They share one temporary folder for results and data, so each finds what the ones before it made, as a reader's do.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CELL_TIMEOUT = 300  # seconds; nbval notices a dead kernel only when it has passed


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="drstudy-nbval-") as folder:
        os.environ["DRSTUDY_RESULTS"] = f"{folder}/results"
        os.environ["DRSTUDY_DATA"] = f"{folder}/data"
        return pytest.main(
            [
                *("--nbval", "--nbval-current-env", "--nbval-cell-timeout", str(CELL_TIMEOUT)),
                *("--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg")),
                *("--rootdir", str(ROOT), "-p", "no:cacheprovider"),
                *map(str, sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))),
                *sys.argv[1:],
            ]
        )


if __name__ == "__main__":
    sys.exit(main())
