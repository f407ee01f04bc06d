"""Functions of all benchmarks: alternating runs, medians, one JSON line."""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any


def options(description: str, threads: int = 1, **sizes: tuple[int, int, str]) -> argparse.Namespace:
    """Command line of a benchmark.

    Args:
        description: First line of ``--help``.
        threads: Default of ``--threads``.
        sizes: For each name: default, value with ``--quick``, and description.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes: under a minute")
    parser.add_argument(
        "--threads", type=int, default=threads, help=f"CPU threads of each side (default {threads})"
    )
    for name, (_, quick, text) in sizes.items():
        default = sizes[name][0]
        parser.add_argument(f"--{name}", type=int, help=f"{text} (default {default}, quick {quick})")
    given = parser.parse_args()
    for name, (default, quick, _) in sizes.items():
        if getattr(given, name) is None:
            setattr(given, name, quick if given.quick else default)
    return given


def set_threads(number: int) -> None:
    """Limit the threads of the libraries that are loaded after this, and of child processes."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(number)


def alternate(
    sides: dict[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    warm: bool = True,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Run each side once unmeasured, then all of them in turn, ``repeats`` times.

    The order is reversed every other time, so that drift (clock speed, caches) affects all sides equally.

    Args:
        sides: What is run, by name.
        repeats: How often each is measured.
        clock: ``time.process_time`` counts the processor's time and leaves out what other programs take of it.
        warm: Whether each side first runs once unmeasured; commands that start a process of their own gain nothing by that.

    Returns:
        Median seconds of each side, and what each returned last.
    """
    results = {name: run() for name, run in sides.items()} if warm else {}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name in sorted(sides, key=list(sides).index, reverse=bool(turn % 2)):
            gc.collect()
            began = clock()
            results[name] = sides[name]()
            seconds[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}, results


def report(name: str, ours: float, other: float, unit: str, same_result: bool, **more: Any) -> None:
    """Print the JSON line. The ratio states how many times faster ours is (all values are times, lower is better)."""
    from drstudy.core import devices  # only now: a script settles threads and folders before it

    line = {
        "name": name,
        "processor": devices.processor(),
        "ours": ours,
        "other": other,
        "ratio": other / ours,
        "unit": unit,
        "same_result": same_result,
        **more,
    }
    print(json.dumps({key: _short(value) for key, value in line.items()}), flush=True)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
