"""The numbers that the smoke profile must give: ``tests/expected/<notebook>.json``, each with a tolerance that was measured.

    python tests/expectations.py                    measures values, spreads and tolerances anew
    python tests/expectations.py --folder FOLDER    the same; runs that are finished in FOLDER are not repeated

The profile is run once for each setting: natively with one and with two threads, and with one thread as each other kind of
processor with AVX2 that can be emulated here (see ``processors.py``). The *spread* of a number is the largest minus the smallest value
over the settings. The tolerance follows from it by one rule, :func:`tolerance`; the loader refuses any other tolerance.

A tolerance guards against the rounding of another processor, not against a change of the code. So it is also refused where it
is wider than what it guards: at or above the value itself, or above half of what another seed of training changes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import processors

from drstudy.study import plan

EXPECTED = Path(__file__).resolve().parent / "expected"
SEEDS = range(5)
SEEDED = {
    "02_oversampling": ("02", "02_oversampling", ""),
    "03_fine_tuning/efficientnet_lite0-seed0": ("03", "03_fine_tuning", "efficientnet_lite0-seed0"),
}
"""Stages that are trained with every seed: their notebook, folder and variant."""

MARGIN = 5
"""Times the measured spread: a processor that is not among the settings may lie outside their range, but not far."""
ROUNDING = 1e-9
"""The least tolerance of a number that is not exact, relative to its value: what double precision makes of some thousand terms."""
SHARE_OF_SEEDS = 0.5
"""The largest tolerance, relative to the standard deviation over seeds of training."""


def tolerance(value: float, assumed: float, step: float = 0.0) -> float:
    """The one rule: five times the spread, but at least the number's step and at least its rounding.

    Args:
        value: Of the native run with one thread.
        assumed: The largest spread of the number's family.
        step: By how much the number changes when a few scores change places; 0 for a smooth one.
    """
    return max(MARGIN * assumed, step, ROUNDING * abs(value))


@dataclass(frozen=True)
class Expectation:
    """One number.

    Attributes:
        stage: ``<notebook>[/<variant>]`` of the smoke profile.
        metric: Name in its ``run.json``.
        reason: What the number is made of, which says why it moves or does not.
        exact: Whether every processor must give the same number, as for counts.
        value: Of the native run with one thread.
        spread: Largest minus smallest value over the settings in ``measured``.
        family: Numbers of one kind, such as the log loss of every short training. Each takes the largest spread of its family,
            since a few settings can agree by chance. Empty: a family of its own.
        assumed: That largest spread.
        step: See :func:`tolerance`.
        tolerance: Found must be within it of ``value``; 0 for an exact number, else by :func:`tolerance`.
        seed_sd: Standard deviation over seeds 0 to 4 of training; None where no training of this stage is behind the number.
        measured: The settings, at least two. One that is marked as earlier could not be run when the others were; the spread
            that was measured with it was kept if it was the larger one.
    """

    stage: str
    metric: str
    reason: str
    exact: bool
    value: float
    spread: float
    family: str
    assumed: float
    step: float
    tolerance: float
    seed_sd: float | None
    measured: tuple[str, ...]

    def __post_init__(self) -> None:
        name = f"{self.stage} {self.metric}"
        if not self.reason.strip():
            raise ValueError(f"{name}: the reason is missing; say what the number is made of.")
        if len(set(self.measured)) < 2:
            raise ValueError(f"{name}: a spread needs at least two settings; there is {list(self.measured)}.")
        if min(self.spread, self.assumed, self.step, self.tolerance) < 0:
            raise ValueError(f"{name}: spread, step and tolerance must not be below 0.")
        if self.exact:
            if self.spread or self.assumed or self.step or self.tolerance:
                raise ValueError(
                    f"{name}: an exact number has no spread, step or tolerance, but spread {self.spread:.3g}, "
                    f"step {self.step:.3g} and tolerance {self.tolerance:.3g} are given."
                )
            return
        if self.assumed < self.spread or (not self.family and self.assumed != self.spread):
            raise ValueError(
                f"{name}: the spread assumed, {self.assumed}, must be the largest of the family; its own is {self.spread}."
            )
        rule = tolerance(self.value, self.assumed, self.step)
        if not math.isclose(self.tolerance, rule, rel_tol=1e-6):
            raise ValueError(
                f"{name}: the tolerance {self.tolerance} is not by the rule, which gives {rule}."
            )
        if self.tolerance >= abs(self.value):
            raise ValueError(
                f"{name}: the tolerance {self.tolerance} is not below the value {self.value}: 0 would pass."
            )
        if self.seed_sd is not None and self.tolerance > SHARE_OF_SEEDS * self.seed_sd:
            raise ValueError(
                f"{name}: the tolerance {self.tolerance} is above {SHARE_OF_SEEDS:g} times {self.seed_sd}, the standard "
                "deviation over seeds. Test a property of the number instead of its value."
            )

    def holds(self, found: float) -> bool:
        """Whether a number found agrees."""
        return abs(found - self.value) <= self.tolerance


def entries(folder: Path = EXPECTED) -> list[dict]:
    """The entries of all files, one file per notebook, in the order of the notebooks."""
    return [entry for file in sorted(folder.glob("*.json")) for entry in json.loads(file.read_text())]


def write(found: list[dict], folder: Path = EXPECTED) -> None:
    """Write entries, each to the file of its notebook."""
    by_notebook: dict[str, list[dict]] = {}
    for one in found:
        by_notebook.setdefault(one["stage"].partition("/")[0], []).append(one)
    for notebook, own in by_notebook.items():
        (folder / f"{notebook}.json").write_text(json.dumps(own, indent=1) + "\n")


def load(folder: Path = EXPECTED) -> list[Expectation]:
    """Read the expectations of all notebooks.

    Raises:
        ValueError: If one is not honest: no reason, a tolerance that is not by the rule, or one as wide as what it guards.
        TypeError: If a field is missing or unknown.
    """
    found = [
        Expectation(**entry | {"measured": tuple(entry.get("measured", ()))}) for entry in entries(folder)
    ]
    for one in found:
        if one.family and one.assumed != max(other.spread for other in found if other.family == one.family):
            raise ValueError(
                f"{one.stage} {one.metric}: {one.assumed} is not the largest spread of family {one.family}."
            )
    return found


@dataclass(frozen=True)
class Setting:
    """A kind of processor and a number of threads."""

    kind: str
    threads: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.threads}"


OTHER_PIXELS = ("sse4",)
"""Kinds that are left out: without AVX2, torch resizes photographs by another method, so networks are trained on other pixels.

A tenth of the pixels of augmented views differ there, by up to 4 of 255 levels, and the spread of trained numbers is 3 to 20 times
that of the other kinds (see docs/reproducibility.md). Every x86-64 server since 2013 has AVX2.
"""


def settings() -> list[Setting]:
    """What can be run here, the reference first."""
    kinds = [kind for kind in processors.available() if kind not in OTHER_PIXELS]
    return [Setting("native", 1), Setting("native", 2), *(Setting(kind, 1) for kind in kinds)]


class Run:
    """The smoke profile under one setting, in folders of its own."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.threads = setting.threads
        self.results = folder / str(setting) / "results"
        self.environment = processors.environment(setting.kind) | {
            "DRSTUDY_RESULTS": str(self.results),
            "DRSTUDY_DATA": str(folder / str(setting) / "data"),
            "OMP_NUM_THREADS": str(setting.threads),
        }

    def drstudy(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "drstudy.study.cli", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")

    def reproduce(self) -> None:
        """The whole profile. Snakemake gives each stage one thread; with more, the stages are run one after the other."""
        if self.threads == 1:
            self.drstudy("reproduce", "--profile", "smoke", "--study", "all", "--cores", "2")
            return
        for stage in plan.plan("smoke", "all"):
            variant = ("--variant", stage.variant) if stage.variant else ()
            self.drstudy("run", stage.notebook, "--profile", "smoke", *variant)

    def metrics(self, stage: str) -> dict[str, float]:
        return json.loads((self.results / "smoke" / stage / "run.json").read_text())["metrics"]


def seeds(run: Run, stage: str) -> list[dict[str, float]]:
    """The metrics of a stage for every seed of its training; a run that is older than that of the first seed is repeated."""
    notebook, name, variant = SEEDED[stage]
    found = [run.metrics(stage)]
    first = (run.results / "smoke" / stage / "run.json").stat().st_mtime
    for seed in SEEDS[1:]:
        other = f"{name}/seed{seed}"
        record = run.results / "smoke" / other / "run.json"
        if not record.exists() or record.stat().st_mtime < first:
            chosen = ("--variant", variant) if variant else ()
            setting = ("-p", f"SEED={seed}", "-p", f"VARIANT=seed{seed}")
            run.drstudy("run", notebook, "--profile", "smoke", *chosen, *setting)
        found.append(run.metrics(other))
    return found


def entry(old: dict, found: dict[str, float], of_seeds: list[float]) -> dict:
    """An entry with what was measured.

    Args:
        old: The entry so far; ``stage``, ``metric``, ``reason``, ``exact``, ``family`` and ``step`` are kept.
        found: The number for each setting, the reference first.
        of_seeds: The number for every seed; empty where no training of this stage is behind it.
    """
    values = list(found.values())
    spread = 0.0 if len(set(values)) == 1 else max(values) - min(values)
    missing = [name for name in old.get("measured", []) if name.removesuffix(" (earlier)") not in found]
    if missing:
        spread = max(spread, old["spread"])
    value, step = values[0], old.get("step", 0.0)
    return {
        "stage": old["stage"],
        "metric": old["metric"],
        "reason": old["reason"],
        "exact": old["exact"],
        "value": value,
        "spread": spread,
        "family": old.get("family", ""),
        "assumed": spread,
        "step": step,
        "tolerance": 0.0 if old["exact"] else tolerance(value, spread, step),
        "seed_sd": float(f"{statistics.stdev(of_seeds):.4g}") if len(set(of_seeds)) > 1 else None,
        "measured": [*found, *(f"{name.removesuffix(' (earlier)')} (earlier)" for name in missing)],
    }


def share_spreads(entries: list[dict]) -> list[dict]:
    """The entries with the largest spread of each family, and the tolerance that follows."""
    shared = []
    for one in entries:
        family = [other["spread"] for other in entries if one["family"] and other["family"] == one["family"]]
        assumed = max([one["spread"], *family])
        by_rule = 0.0 if one["exact"] else tolerance(one["value"], assumed, one["step"])
        shared.append(one | {"assumed": assumed, "tolerance": by_rule})
    return shared


@contextlib.contextmanager
def folder_of(given: Path | None) -> Iterator[Path]:
    """The folder of the runs: the given one, which stays, or a temporary one."""
    if given:
        given.mkdir(parents=True, exist_ok=True)
        yield given
    else:
        with tempfile.TemporaryDirectory(prefix="drstudy-expected-") as folder:
            yield Path(folder)


def measure(folder: Path) -> list[dict]:
    """Run the profile under every setting, and its training with other seeds; returns the new entries."""
    runs = {}
    for setting in settings():
        began = time.monotonic()
        run = runs[str(setting)] = Run(setting, folder)
        run.reproduce()
        print(f"{setting}: {time.monotonic() - began:.0f} s", flush=True)
    reference = next(iter(runs.values()))
    began = time.monotonic()
    of_seeds = {stage: seeds(reference, stage) for stage in SEEDED}
    print(f"other seeds: {time.monotonic() - began:.0f} s", flush=True)
    made = []
    for old in entries():
        stage, metric = old["stage"], old["metric"]
        found = {name: run.metrics(stage)[metric] for name, run in runs.items()}
        trained = [] if old["exact"] else of_seeds.get(stage, [])
        made.append(entry(old, found, [one[metric] for one in trained]))
    return share_spreads(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, help="where the runs go and stay (default: a temporary folder)"
    )
    chosen = parser.parse_args()
    stored = {name for old in entries() for name in old.get("measured", [])}
    absent = sorted({name.removesuffix(" (earlier)") for name in stored} - {str(s) for s in settings()})
    if absent:
        print(
            f"Not possible here: {', '.join(absent)}. Their spreads are kept where they are larger.",
            flush=True,
        )
    with folder_of(chosen.folder) as folder:
        made = measure(folder)
    write(made)
    for old in made:
        print(
            f"{old['stage']} {old['metric']}: {old['value']:.10g}, spread {old['spread']:.2g}, tolerance {old['tolerance']:.2g}"
        )
    load()  # the file is written first, so that a refused number can be looked at


if __name__ == "__main__":
    main()
