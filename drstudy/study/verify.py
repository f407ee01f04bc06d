"""How far a run reproduces the committed results: number by number, verdict by verdict, cost by cost.

``reference/<profile>/`` holds the committed results of a profile: the tables of each stage, its costs, the verdicts of the ledger, and
``tolerances.csv``, which was measured before any run that it judges (:mod:`drstudy.study.reference` writes all of it). Each number of a run
falls into one of five classes:

- **identical**: the same to the last bit.
- **within tolerance**: off by no more than the tolerance of its column, a fixed multiple of what other processors and other numbers of
  threads were measured to change.
- **inside the interval**: off by more, but inside the committed 95 % interval. The limits of an interval count as inside if they moved by
  no more than half its width.
- **chaotic**: off by even more, but by no more than the multiple of what was measured, which for this number is too wide to be called a
  tolerance: processors alone move it by a good part of its interval, or make it undefined. So is every other number of a network
  without pretraining. Nothing guards such a number but the verdicts.
- **outside**: everything else. A number that is missing, or undefined on one side only where that was not measured, is outside too.

Tables with a row per photograph, and tables of more than :data:`drstudy.study.pairing.MOST_ROWS` rows, are not compared number by number, only
by their bytes; what the study says of them stands in the other tables. Texts with numbers in them (such as ``0.84 [0.76, 0.90]``) repeat numbers of other tables, so only their words are compared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drstudy.core import devices, paths, records
from drstudy.papers import registry
from drstudy.show import intervals
from drstudy.study import claims, pairing, plan

CLASSES = ("identical", "within tolerance", "inside the interval", "chaotic", "outside")
VERDICTS = ["claim", "committed", "found"]
ABSENT = "not there"
HOW = ("DEVICE", "PRECISION", "THREADS", "PROCESSES", "WORKERS", "COMPILE")
"""Parameters that say how something is computed, not what; runs that differ in them may be compared."""
MOST = 0.25
"""Share of an interval's width that a tolerance may reach: a number within tolerance is well inside its own uncertainty."""
SLACK = 0.5
"""Share of an interval's width by which its limits may move and still count as inside."""


class VerifyError(records.RecordError):
    """There is nothing to compare with, or nothing to compare."""


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        profile: The profile.
        numbers: One row per number: ``stage, table, row, column, committed, found, difference, tolerance, lo, hi, class``.
        verdicts: One row per claim that both sides judged: ``claim, committed, found``.
        words: One row per text that differs by more than its numbers: ``stage, table, column, committed, found``.
        costs: One row per stage: ``stage, seconds, seconds_committed, memory_mib, memory_mib_committed`` (core-seconds of the kernel).
        speed: How many times as long as the committed machine this one needs for the same arithmetic; NaN if not measured.
        missing: Stages of the committed results that are not finished here.
        changed: Stages that were run with other parameters or weights, or build on such a stage, with the reason; their numbers are
            not compared.
        unknown: Finished stages without a committed result.
        notes: Sentences about what else differs, such as versions of packages.
    """

    profile: str
    numbers: pd.DataFrame
    verdicts: pd.DataFrame
    words: pd.DataFrame
    costs: pd.DataFrame
    speed: float = np.nan
    missing: list[str] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers per class, in the order of :data:`CLASSES`."""
        found = self.numbers["class"].value_counts()
        return {name: int(found.get(name, 0)) for name in CLASSES}

    @property
    def equal_verdicts(self) -> int:
        return int((self.verdicts["committed"] == self.verdicts["found"]).sum())

    @property
    def ok(self) -> bool:
        """Whether nothing is outside, all verdicts are equal, and no stage was left out because of other parameters."""
        return not self.counts["outside"] and self.equal_verdicts == len(self.verdicts) and not self.changed

    @property
    def line(self) -> str:
        """The whole comparison in one line."""
        parts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        verdicts = (
            f"{self.equal_verdicts} of {len(self.verdicts)} verdicts equal"
            if len(self.verdicts)
            else "no verdicts compared"
        )
        return f"{len(self.numbers):,} numbers: {parts}; {verdicts}"

    @property
    def cost_line(self) -> str:
        """Time and memory against the committed ones, the time also scaled to this machine."""
        if not len(self.costs):
            return "no costs compared"
        here, there = (self.costs[name].sum() / 60 for name in ("seconds", "seconds_committed"))
        most = self.costs[["memory_mib", "memory_mib_committed"]].max() / 1024
        scaled = (
            f"; {there * self.speed:.1f} expected on this machine, whose arithmetic takes {self.speed:.2f} times as long"
            if self.speed == self.speed
            else ""
        )
        return (
            f"{here:.1f} core-minutes in the notebooks against {there:.1f} committed{scaled}; "
            f"largest process {most.iloc[0]:.2f} GiB against {most.iloc[1]:.2f}"
        )

    def lines(self, most: int = 20) -> list[str]:
        """For a terminal: the two lines above, then what a reader should know; at most ``most`` numbers are listed."""
        found = [self.line, self.cost_line]
        found += [
            f"not compared, as the recipe differs: {name} ({what})" for name, what in self.changed.items()
        ]
        found += [f"not finished here: {', '.join(self.missing)}"] if self.missing else []
        found += [f"no committed result: {', '.join(self.unknown)}"] if self.unknown else []
        outside = self.numbers[self.numbers["class"] == "outside"]
        for row in outside.head(most).itertuples():
            found.append(
                f"outside: {row.stage} {row.table}, {row.row}, {row.column}: {_short(row.found)}, committed {_short(row.committed)} "
                f"(tolerance {_short(row.tolerance)}{_interval(row.lo, row.hi)})"
            )
        found += [f"... and {len(outside) - most} more outside"] if len(outside) > most else []
        for row in self.verdicts[self.verdicts["committed"] != self.verdicts["found"]].itertuples():
            found.append(f"verdict: {row.claim}: {row.found}, committed {row.committed}")
        if len(self.words):
            found.append(
                f"{len(self.words)} texts in tables differ by more than numbers, first: {_words(self.words.iloc[0])}"
            )
        return found + self.notes


def _short(value: float) -> str:
    return ABSENT if value != value else f"{value:.6g}"


def _interval(lo: float, hi: float) -> str:
    return "" if lo != lo else f", interval {intervals.between(lo, hi)}"


def _words(row: pd.Series) -> str:
    return f"{row['stage']} {row['table']}, {row['column']}: {row['found']!r}, committed {row['committed']!r}"


def folder(profile: str) -> Path:
    """Where the committed results of a profile are: ``reference/<profile>``."""
    return paths.root() / "reference" / profile


def stages(base: Path) -> dict[str, records.Record]:
    """Finished records below a folder that looks like ``results/<profile>``, by name."""
    return {record.name: record for record in records.below(base)}


def classify(numbers: pd.DataFrame) -> pd.Series:
    """The class of each number.

    Args:
        numbers: With ``group, committed, found, tolerance, measured, undefined, lo, hi, limit, absent``; ``measured`` is the tolerance before it
            was limited to a share of the interval, ``undefined`` whether the number's group had undefined numbers in some runs only.
    """
    committed, found = numbers["committed"], numbers["found"]
    moved = (found - committed).abs()
    there = ~numbers["absent"].astype(bool)
    same = ((committed == found) | (committed.isna() & found.isna())) & there
    width = numbers["hi"] - numbers["lo"]
    between = np.where(
        numbers["limit"].astype(bool),
        moved <= SLACK * width,
        (found >= numbers["lo"]) & (found <= numbers["hi"]),
    )
    one_undefined = numbers["undefined"] & (committed.isna() != found.isna())
    random = numbers["group"].str.endswith(pairing.WITHOUT) & there
    chaotic = ((moved <= numbers["measured"]) & there) | one_undefined | random
    return pd.Series(
        np.select(
            [same, (moved <= numbers["tolerance"]) & there, between & there, chaotic], CLASSES[:4], CLASSES[4]
        ),
        index=numbers.index,
    )


def tolerances(profile: str) -> pd.DataFrame:
    """The committed tolerances: ``stage, table, group, spread, tolerance``.

    Raises:
        VerifyError: If the profile has no committed results.
    """
    file = folder(profile) / "tolerances.csv"
    if not file.is_file():
        known = sorted(path.parent.name for path in (paths.root() / "reference").glob("*/tolerances.csv"))
        raise VerifyError(
            f"There are no committed results of the profile {profile!r} to compare with; there are of: {', '.join(known) or 'none'}."
        )
    return pd.read_csv(file, keep_default_na=False)


def floor(values: pd.Series) -> pd.Series:
    """The least tolerance of numbers: what rounding may do in double precision, 1e-9 of the number or of 1, since shares and
    probabilities are sums of parts of 1, also where their difference is 0."""
    return 1e-9 * values.abs().clip(lower=1.0)


def compare(
    profile: str, against: Path | None = None, calibrate: bool = True, base: Path | None = None
) -> Comparison:
    """Compare the finished stages of a profile with the committed results, or with those of another run.

    Args:
        profile: Of :func:`drstudy.study.plan.profiles`; it must have committed tolerances.
        against: Folder of another run's ``results/<profile>``; ``None`` takes the committed results.
        calibrate: Measure this machine's speed for the comparison of times (a few seconds).
        base: Folder of the run itself; ``None`` is ``results/<profile>``.

    Raises:
        VerifyError: If there are no committed tolerances, or no stage is finished on one of the sides.
    """
    limits = tolerances(profile)
    committed = stages(against or folder(profile))
    base = base or paths.results() / profile
    here = stages(base)
    for side, where in ((committed, against or folder(profile)), (here, base)):
        if not side:
            raise VerifyError(
                f"No stage is finished in {paths.show(where)}; run `drstudy reproduce --profile {profile}` first."
            )
    changed = _changed(profile, committed, here)
    both = [name for name in committed if name in here and name not in changed]
    parts = [pairing.side_by_side(committed[name], here[name], committed) for name in both]
    numbers = pd.concat([part for part, _ in parts] or [pairing.nothing()], ignore_index=True)
    keys = ["stage", "table", "group"]
    numbers = numbers.merge(limits[[*keys, "tolerance", "undefined"]], on=keys, how="left")
    numbers["undefined"] = numbers["undefined"].eq(True)
    least = floor(numbers["committed"].astype(float)).fillna(0.0)
    numbers["measured"] = np.maximum(numbers["tolerance"].astype(float).fillna(0.0), least)
    most = MOST * (numbers["hi"] - numbers["lo"]).where(lambda width: width > 0)
    numbers["tolerance"] = np.maximum(np.minimum(numbers["measured"], most.fillna(np.inf)), least)
    numbers["difference"] = numbers["found"] - numbers["committed"]
    numbers["class"] = classify(numbers)
    wanted = plan.result_names(profile, study_of(here, profile))
    judged = _verdicts(profile, committed, here, against) if not changed else pd.DataFrame(columns=VERDICTS)
    young = judged["committed"] == ABSENT
    return Comparison(
        profile=profile,
        numbers=numbers,
        verdicts=judged[~young],
        words=pd.concat([part for _, part in parts], ignore_index=True) if parts else pd.DataFrame(),
        costs=_costs({name: committed[name] for name in both}, here),
        speed=_speed(profile) if calibrate else np.nan,
        missing=[name for name in committed if name not in here and name in wanted],
        changed=changed,
        unknown=[name for name in here if name not in committed],
        notes=_files([committed[name] for name in both], here)
        + _notes([committed[name] for name in both], [here[name] for name in both])
        + _young(judged.loc[young, "claim"]),
    )


def study_of(found: Mapping[str, Any], profile: str) -> str:
    """``all`` where a stage beyond the core study is finished, else ``core``."""
    return "core" if set(found) <= set(plan.result_names(profile, "core")) else "all"


def parameters_that_differ(committed: records.Record, found: records.Record) -> str:
    """Which parameters of two runs of a stage differ, as text, those of :data:`HOW` aside; and the weights that were really used.

    A parameter that a record does not name is younger than the record, and counts as its default.
    """
    one, other = (
        {**_defaults(record), **record.params, "weights_used": record.metrics.get("weights_used")}
        for record in (committed, found)
    )
    names = [name for name in {**one, **other} if name not in HOW and one.get(name) != other.get(name)]
    return ", ".join(f"{name} {other.get(name)!r} in place of {one.get(name)!r}" for name in names)


def _defaults(record: records.Record) -> dict[str, Any]:
    """Defaults of the parameters of a record's notebook, as records name them; none for a notebook that is not of this study."""
    notebook = registry.NOTEBOOKS.get(record.data["notebook"])
    return notebook.cls().upper() if notebook else {}


def _changed(
    profile: str, committed: Mapping[str, records.Record], here: Mapping[str, records.Record]
) -> dict[str, str]:
    """Stages that another recipe or other weights keep from being compared, those that build on such a stage included."""
    found: dict[str, str] = {}
    for stage in plan.plan(profile, "all"):
        name = stage.result
        if name not in here or name not in committed:
            continue
        own = f"results/{profile}/"
        needs = [need.removeprefix(own) for need in stage.needs if need.startswith(own)]
        if what := parameters_that_differ(committed[name], here[name]):
            found[name] = what
        elif built := [need for need in needs if need in found]:
            found[name] = f"it builds on {', '.join(built)}"
    return found


def _young(claims_: pd.Series) -> list[str]:
    """A line on claims that the committed ledger does not have yet, so that nothing can be compared."""
    if claims_.empty:
        return []
    return [f"{len(claims_)} claims have no committed verdict yet, such as: {claims_.iloc[0]}"]


def verdicts(found: Mapping[str, records.Record], profile: str, study: str) -> pd.DataFrame:
    """The ledger's verdicts from the finished stages of a study: ``study, claim, verdict``."""
    names = set(plan.result_names(profile, study))
    table = claims.ledger([record for name, record in found.items() if name in names])
    return table[["claim", "verdict"]].assign(study=study)[["study", "claim", "verdict"]]


def _verdicts(profile: str, committed: Mapping, here: Mapping, against: Path | None) -> pd.DataFrame:
    """Verdicts of the largest study that both sides have finished whole; empty where there is none."""
    for study in ("all", "core"):
        names = set(plan.result_names(profile, study))
        if names <= set(here) and names <= set(committed):
            file = folder(profile) / "verdicts.csv"
            there = (
                verdicts(committed, profile, study)
                if against
                else pd.read_csv(file, keep_default_na=False).query("study == @study")
            )
            both = there.merge(
                verdicts(here, profile, study), on="claim", how="outer", suffixes=("_there", "_here")
            ).fillna(ABSENT)
            return both.rename(columns={"verdict_there": "committed", "verdict_here": "found"})[VERDICTS]
    return pd.DataFrame(columns=VERDICTS)


def _costs(committed: Mapping[str, records.Record], here: Mapping[str, records.Record]) -> pd.DataFrame:
    rows = [
        {
            "stage": name,
            "seconds": here[name].data.get("cpu_seconds", np.nan),
            "seconds_committed": record.data.get("cpu_seconds", np.nan),
            "memory_mib": here[name].data["peak_rss_mb"],
            "memory_mib_committed": record.data["peak_rss_mb"],
        }
        for name, record in committed.items()
        if not (here[name].data.get("trainings") or {}).get("found")  # it took what another run had paid for
    ]
    return pd.DataFrame(
        rows, columns=["stage", "seconds", "seconds_committed", "memory_mib", "memory_mib_committed"]
    )


def _speed(profile: str) -> float:
    file = folder(profile) / "machine.json"
    return (
        devices.calibration() / json.loads(file.read_text(encoding="utf-8"))["calibration"]
        if file.is_file()
        else np.nan
    )


def _files(committed: list[records.Record], here: Mapping[str, records.Record]) -> list[str]:
    """How many result files (predictions, maps, tables, figures, networks) have the same bytes; timings aside."""
    pairs = [
        (digest, here[record.name].data["outputs"].get(name))
        for record in committed
        for name, digest in record.data["outputs"].items()
        if name != "timings.csv"
    ]
    return [f"{sum(a == b for a, b in pairs):,} of {len(pairs):,} result files are the same to the byte"]


def _notes(committed: list[records.Record], here: list[records.Record]) -> list[str]:
    """Versions of packages, precision and processor that differ."""
    found = []
    for title, field_of in (
        ("processor", lambda r: r.data.get("processor") or "not recorded"),
        ("device", lambda r: r.data["device"]),
    ):
        one, other = ("; ".join(sorted({field_of(record) for record in side})) for side in (committed, here))
        found += [f"{title}: {other}; committed: {one}"] if one != other else []
    one, other = (
        {(name, version) for r in side for name, version in r.data["packages"].items()}
        for side in (committed, here)
    )
    if new := sorted(other - one):
        found.append(
            f"packages: {', '.join(' '.join(item) for item in new)}; committed: {', '.join(' '.join(item) for item in sorted(one - other))}"
        )
    return found


def write(profile: str, against: Path | None = None, calibrate: bool = True) -> Comparison:
    """Compare, and write ``verify.csv`` (numbers that are not identical) and ``verify.json`` into ``results/<profile>``."""
    found = compare(profile, against, calibrate)
    base = paths.results() / profile
    columns = [
        "stage",
        "table",
        "row",
        "column",
        "committed",
        "found",
        "difference",
        "tolerance",
        "lo",
        "hi",
        "class",
    ]
    with paths.atomic(base / "verify.csv") as temporary:
        rows = found.numbers.loc[found.numbers["class"] != "identical", columns]
        rows.sort_values("class", key=lambda c: c.map(CLASSES.index), ascending=False, kind="stable").to_csv(
            temporary, index=False
        )
    summary = {
        "line": found.line,
        "costs": found.cost_line,
        "ok": found.ok,
        "numbers": found.counts,
        "verdicts": {"equal": found.equal_verdicts, "compared": len(found.verdicts)},
        "lines": found.lines(),
        "against": paths.show(against or folder(profile)),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    records.write_json(summary, base / "verify.json")
    return found
