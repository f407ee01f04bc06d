"""Run the benchmarks, one after the other, keep their rows in results.jsonl, and write RESULTS.md.

    python benchmarks/run_all.py                    all but those that run only if they are named
    python benchmarks/run_all.py bootstrap scaling  only these
    python benchmarks/run_all.py --quick            options are handed on to each script
    python benchmarks/run_all.py --page             only write the page again

Rows of the present kind of processor are replaced, all others stay. As another processor (the second column of the page):
``python tests/processors.py avx2 -- python benchmarks/run_all.py``.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from results_page import IF_NAMED, page

from drstudy.core import devices, paths

HERE = Path(__file__).parent
STORE, PAGE = "results.jsonl", "RESULTS.md"

SCRIPTS = (
    "fine_tune",
    "precision",
    "convolutions",
    "prepare_images",
    "heatmaps",
    "heatmap_methods",
    "glam",
    "sall",
    "gan",
    "compile_trunk",
    "bootstrap",
    "paired",
    "phantom",
    "scaling",
    "overhead",
    "stages",
    "device_speed",
    "whole_size",
)


def main(arguments: Sequence[str], folder: Path = HERE, scripts: Path = HERE) -> int:
    """Run what is asked for.

    Args:
        arguments: Names of scripts, and options for all of them.
        folder: Where the rows and the page are kept.
        scripts: Where the scripts are.

    Returns:
        Exit code: 1 if a script failed.
    """
    store = folder / STORE
    kept = []
    if store.exists():
        kept = [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()]
    failed: list[str] = []
    if "--page" not in arguments:
        named = [name for name in SCRIPTS if name in arguments]
        chosen = named or [name for name in SCRIPTS if name not in IF_NAMED]
        options = [text for text in arguments if text not in SCRIPTS]
        began = time.monotonic()
        for name in chosen:
            kept, succeeded = measured(name, options, kept, scripts)
            failed += [] if succeeded else [name]
            with paths.atomic(store) as temporary:  # after each, as they take an hour together
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        minutes = (time.monotonic() - began) / 60
        print(f"all {len(chosen)} scripts: {minutes:.1f} minutes", file=sys.stderr, flush=True)
    (folder / PAGE).write_text(page(kept), encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}; their old rows of this processor are dropped", file=sys.stderr)
    return 1 if failed else 0


def measured(name: str, options: Sequence[str], rows: list[dict], scripts: Path) -> tuple[list[dict], bool]:
    """Run a script; return all rows, the new ones in the place of those of this processor, and whether it succeeded."""
    here, start = devices.processor(), time.monotonic()
    kept = [row for row in rows if row["script"] != name or row.get("processor") != here]
    about = {**provenance(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    done = subprocess.run(
        [sys.executable, str(scripts / f"{name}.py"), *options],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    seconds = round(time.monotonic() - start, 1)
    print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        print(f"{name} failed with exit code {done.returncode}", file=sys.stderr, flush=True)
    for line in filter(lambda line: line.startswith("{"), done.stdout.splitlines()):
        print(line, flush=True)
        own = {"script": name, "options": " ".join(options), **about, "script_seconds": seconds}
        kept.append(own | {"processor": here} | json.loads(line))
    kept.sort(key=lambda row: SCRIPTS.index(row["script"]))
    return kept, not done.returncode


def provenance() -> dict[str, str | bool]:
    """``commit`` of this clone, and whether it was ``changed``, but for the files that are written here; empty without git."""
    command = ["git", "-C", str(HERE)]
    try:
        commit = subprocess.run(
            [*command, "rev-parse", "HEAD"], capture_output=True, text=True, encoding="utf-8", check=True
        ).stdout
        own = [f":(exclude,top)benchmarks/{name}" for name in (STORE, PAGE)]
        status = [*command, "status", "--porcelain", "--", ":(top)", *own]
        changed = subprocess.run(status, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "", "changed": False}
    return {"commit": commit.strip(), "changed": bool(changed.strip())}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
