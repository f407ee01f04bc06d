"""All unfinished stages of a profile, run under Snakemake, which orders them and keeps the cores busy.

:mod:`drstudy.study.reasons` says which stages have to run; Snakemake is told so (``--forcerun``), and adds what comes after them. Of its own
triggers only the dates of the records are left on, which :func:`_settle` keeps in the order of the stages. Called by hand
(``snakemake --config profile=demo``), Snakemake goes by all of its triggers, among them the same parameters and digests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil

from drstudy.core import paths
from drstudy.papers.base import Stage
from drstudy.study import ahead, failures, plan, reasons
from drstudy.study import cluster as clusters
from drstudy.study.failures import StageError
from drstudy.study.progress import Watch
from drstudy.study.run import say

LOOK_SECONDS = 1.0
"""Time between two looks for stages that have finished."""
REPORT = "report"
"""Name of the report among the stages that have to run."""


def pending(profile: str, until: str = "", study: str = "core") -> dict[str, str]:
    """What :func:`execute` would run: names of stages, and :data:`REPORT`, each with a line that says why.

    Args:
        profile: Of :func:`drstudy.study.plan.profiles`.
        until: Only this notebook, by number or name, and what it needs; empty is all, with the report.
        study: Of :data:`drstudy.study.plan.STUDIES`.

    Raises:
        KeyError: If there is no such profile, study or notebook.
    """
    chosen = _chosen(profile, until, study)
    everything = reasons.find(chosen)
    found = {folder: why for folder, why in everything.items() if why}
    stages = {folder: plan.stage_of(folder) for folder in found}
    lines = {
        reasons.label(stage, profile): reasons.line(stage, profile, everything)
        for folder, stage in stages.items()
    }
    if not until:
        first = [stage.name for stage in chosen if stage.folder in found]
        why = [f"{reasons.some(first)} will run"] if first else reasons.of_report(profile, chosen)
        lines |= {REPORT: f"{REPORT}: {'; '.join(why)}"} if why else {}
    return lines


def _chosen(profile: str, until: str, study: str) -> list[Stage]:
    chosen = [s for s in plan.plan(profile, study) if s.notebook.startswith(until)]
    if not chosen:
        further = any(s.notebook.startswith(until) for s in plan.plan(profile, "all"))
        hint = " in the study core; use --study all" if further else ""
        raise KeyError(f"The profile {profile!r} has no notebook {until!r}{hint}.")
    return chosen


def command(
    profile: str,
    study: str,
    until: str,
    cores: int,
    *options: str,
    found: Mapping[str, list[str]] | None = None,
    cluster: Path | None = None,
    module: Sequence[str] = ("snakemake",),
) -> list[str]:
    """The command line of Snakemake for a profile, with the stages that have to run.

    Args:
        profile, study, until, cores, cluster: As :func:`execute`.
        options: Further options of Snakemake.
        found: Reasons of the stages, where they are known already.
        module: Python module that is run, and its own arguments: Snakemake, or what runs Snakemake.

    Raises:
        KeyError: As :func:`pending`.
        FileNotFoundError, ValueError, StageError: As :func:`drstudy.study.cluster.options`.
    """
    chosen = _chosen(profile, until, study)
    found = reasons.find(chosen) if found is None else found
    forced = [target(plan.stage_of(folder)) for folder, why in found.items() if why]
    report = f"{profile}/report/index.html"
    if not until and reasons.of_report(profile, chosen):
        forced.append(report)
    return [
        *(sys.executable, "-m", *module, "--snakefile", str(paths.root() / "Snakefile")),
        *("--directory", str(paths.results()), "--nolock"),
        *("--quiet", "rules", "progress", "host"),
        *("--rerun-triggers", "mtime"),
        *("--config", f'profile="{profile}"', f"study={study}"),
        *((f"cores={cores}", *clusters.options(cluster)) if cluster else ("--cores", str(cores))),
        *(["--forcerun", *forced] if forced else []),
        *options,
        *(["--", *(target(s) for s in chosen)] if until else []),
    ]


def working(profile: str) -> Path:
    """The lock file that Snakemake holds while it works on a profile, even if the command that started it was killed
    (:mod:`drstudy.study.locked`)."""
    return paths.results() / profile / ".working"


def target(stage: Stage) -> str:
    """The record of a stage as Snakemake names it: relative to the folder of results, whose own path may hold any letters."""
    return f"{stage.folder.removeprefix('results/')}/run.json"


def _settle(found: dict[str, list[str]]) -> None:
    """Give each finished record that is older than one that it was made from the present date, as copying results may leave them so."""
    for folder, why in found.items():
        stage = plan.stage_of(folder)
        needed = [paths.resolve(need) / "run.json" for need in stage.needs]
        if not why and any(file.stat().st_mtime > stage.record.stat().st_mtime for file in needed):
            os.utime(stage.record)


def execute(
    profile: str,
    cores: int,
    until: str = "",
    study: str = "core",
    cluster: Path | None = None,
    watch: Watch | None = None,
) -> dict[str, str]:
    """Run a profile's unfinished stages and its report under Snakemake, which goes on with what does not need a failed stage.

    Args:
        profile: Of :func:`drstudy.study.plan.profiles`.
        cores: Stages that may run side by side; on a cluster, cores of a stage that uses a whole machine.
        until: Only this notebook, by number or name, and what it needs; empty is all.
        study: Of :data:`drstudy.study.plan.STUDIES`.
        cluster: Folder of a profile of Snakemake, by which a cluster runs the stages; None is this machine.
        watch: Looks for finished stages, whose lines on the progress are printed, and says which stage should not wait.

    Returns:
        Name of each stage that failed, and what to tell the user of it (:func:`drstudy.study.failures.text`).

    Raises:
        KeyboardInterrupt: After Ctrl-C or a termination signal, when all stages have stopped.
        StageError: If Snakemake itself failed, with what it says.
        FileNotFoundError, ValueError, StageError: As :func:`drstudy.study.cluster.options`.
    """
    began = time.time()
    found = reasons.find(_chosen(profile, until, study))
    options = ("--rerun-incomplete", "--keep-going")
    if watch and (first := watch.urgent()):
        options = ("--prioritize", target(first), *options)
    module = ("drstudy.study.locked", str(working(profile)))
    told = command(profile, study, until, cores, *options, found=found, cluster=cluster, module=module)
    _settle(found)
    kernels = nullcontext() if cluster else ahead.offered()
    with kernels, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as chatter:
        process = subprocess.Popen(told, stderr=chatter)
        status = _wait(process, watch)
        stages = [plan.stage_of(folder) for folder in found]
        reasons_told = {reasons.label(stage, profile): failures.read(stage, began) for stage in stages}
        failed = {name: reason for name, reason in reasons_told.items() if reason}
        if status and not failed:
            chatter.seek(0)
            raise StageError(f"Snakemake failed on {profile}:\n{chatter.read().strip()}")
    return failed


def _wait(process: subprocess.Popen, watch: Watch | None = None) -> int:
    """Wait for Snakemake; on Ctrl-C or a termination signal stop its stages, wait until they have stopped, and raise.

    Snakemake and the stages get the termination signal: it cannot have been inherited as ignored, as Ctrl-C is by what a script starts in the
    background, and a Python that is still starting obeys it without a traceback. Snakemake then starts nothing further and waits for the
    stages. Its shells get nothing, since they end with their stage.
    """

    def stop(number: int, frame: Any) -> None:
        if number == signal.SIGTERM:  # Ctrl-C reaches the stages by itself
            stages = psutil.Process().children(recursive=True)
            process.terminate()  # first, so that it starts no other stage in the place of one that stops
            for child in stages:
                with suppress(psutil.NoSuchProcess):
                    if child.pid != process.pid and child.name().startswith("python"):
                        child.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    interrupted = False
    try:
        while True:
            try:
                status = process.wait(LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if watch and not interrupted and (line := watch.look()):
                    say(line)
            except KeyboardInterrupt:
                interrupted = True
    finally:
        signal.signal(signal.SIGTERM, before)
    if interrupted:
        raise KeyboardInterrupt
    return status
