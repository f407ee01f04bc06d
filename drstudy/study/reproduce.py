"""`drstudy reproduce`: what it says before it starts, while it runs, and at its end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from drstudy.core import paths
from drstudy.papers.base import Stage
from drstudy.study import cluster as clusters
from drstudy.study import execute, plan, reasons
from drstudy.study.progress import Watch
from drstudy.study.run import alone, say

Complain = Callable[[str], None]
"""Prints a line on what went wrong."""


def reproduce(
    profile: str,
    cores: int | None,
    until: str,
    study: str,
    dry_run: bool,
    cluster: Path | None,
    complain: Complain,
) -> int:
    """Run every stage of a profile that is not finished, then its report.

    Args:
        profile, until, study, cluster: As :func:`drstudy.study.execute.execute`.
        cores: Stages that may run side by side; None is all cores, on a cluster :data:`drstudy.study.cluster.CORES`.
        dry_run: Whether only to say what would run.
        complain: Prints lines on what went wrong.

    Returns:
        Exit status: 0, 1 if a stage failed, 130 if it was interrupted.

    Raises:
        StageError: If another process works on the profile.
    """
    say(f"{profile}: {plan.profile(profile).description}")
    this, folder = f"drstudy reproduce --profile {profile}", paths.results() / profile
    with alone(folder, this):
        with alone(folder, this, execute.working(profile).name):
            pass  # Snakemake of a command that was killed does not work any more
        todo = execute.pending(profile, until, study)
        if not todo:
            say("nothing to do: everything is finished" + ("" if until else f"; open {page(profile)}"))
            return 0
        say(f"to run: {', '.join(todo)}")
        cores = cores or (clusters.CORES if cluster else os.cpu_count() or 1)
        watch = Watch(named(todo, profile), cores)
        if watch.stages:
            say(f"estimate: {watch.estimate.sentence}")
        if dry_run:
            say("\n".join(todo.values()))
            return 0
        began = time.monotonic()
        try:
            failed = execute.execute(profile, cores, until, study, cluster, watch)
        except KeyboardInterrupt:
            complain("stopped; finished stages are kept, and the same command goes on from here")
            return 130
    return _end(profile, until, study, failed, time.monotonic() - began, complain)


def named(todo: Iterable[str], profile: str) -> dict[str, Stage]:
    """The stages of names that :func:`drstudy.study.execute.pending` gives, without the report."""
    own = {reasons.label(stage, profile): stage for stage in plan.plan(profile, "all")}
    found = {}
    for name in todo:
        other, _, _ = name.partition(" ")
        if name not in own and other in plan.profiles():
            own |= {reasons.label(stage, profile): stage for stage in plan.plan(other, "all")}
        if name in own:
            found[name] = own[name]
    return found


def page(profile: str) -> str:
    """The report of a profile, as it is shown to readers."""
    return paths.show(paths.results() / profile / "report" / "index.html")


def _end(
    profile: str, until: str, study: str, failed: dict[str, str], seconds: float, complain: Complain
) -> int:
    """Say what came out; returns the exit status."""
    used = os.times()
    spent = (used.children_user + used.children_system) / 60
    minutes = f"{seconds / 60:.1f} minutes" + (
        f" ({spent:.1f} core-minutes)" if spent else ""  # Windows does not count what other processes used
    )
    if failed:
        for name, reason in failed.items():
            complain(f"failed: {name}: {reason}")
        complain(
            f"{len(failed)} failed after {minutes}. Start the same command again when the cause is removed: it goes on with what is "
            f"unfinished. `drstudy report --profile {profile}` shows what is finished."
        )
        return 1
    say(f"done in {minutes}")
    verified = paths.results() / profile / "verify.json"
    if not until and verified.is_file():
        first, *further = json.loads(verified.read_text(encoding="utf-8"))["lines"]
        say("\n  ".join([f"reproduced: {first}", *further]))
    for line in _what_to_open(profile, until, study):
        say(line)
    return 0


def _what_to_open(profile: str, until: str, study: str) -> list[str]:
    """Lines on what a reader looks at now."""
    notebooks = paths.show(paths.results() / profile)
    lines = [
        f"each notebook with its results: {notebooks}/<notebook>/executed.ipynb; `drstudy lab` opens them in JupyterLab"
    ]
    if not until:
        lines.append(f"the report, with every table, figure and verdict: open {page(profile)}")
    return lines
