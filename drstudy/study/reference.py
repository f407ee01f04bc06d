"""The committed results of a profile, and the tolerances with which other machines are compared (for maintainers).

    drstudy reference --profile demo --other "avx2=/somewhere/results/demo" --other "two threads=/elsewhere/results/demo"

writes ``reference/<profile>/`` from the finished results of the profile and from runs of it under other settings:

- ``<notebook>[/<variant>]/run.json`` and ``tables/``: a slim copy of each stage, without tables that have a row per photograph.
- ``verdicts.csv``: the ledger's verdicts of the core study and, where it is finished, of the whole one.
- ``tolerances.csv``: for each group of numbers the spread that was measured over the runs, and the tolerance that follows from it.
- ``machine.json``: the processor and its calibration.
- ``settings.csv``: one row per run: what it was, and how its numbers compare; ``costs.csv``: what each notebook took in each run.

The rule for tolerances is :data:`FACTOR` times the spread, which :mod:`drstudy.study.verify` limits to a share of a number's interval. It was
written before the runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drstudy.core import devices, paths, records
from drstudy.study import pairing, plan, verify

FACTOR = 3
"""Tolerance over measured spread: the runs are few, and another processor may do a little more than they did."""
KEPT = (
    *("status", "notebook", "profile", "variant", "params", "outputs", "git", "packages"),
    *("device", "processor", "cpu_seconds", "seconds", "peak_rss_mb"),
)


def write(profile: str, others: Mapping[str, Path], held_out: Mapping[str, Path] | None = None) -> Path:
    """Write the committed results of a profile from finished runs.

    Args:
        profile: Its own finished results, ``results/<profile>``, become the committed ones.
        others: Name of a setting (another processor, more threads) to the folder of a run of the same profile under it. A stage that
            none of them has run is left out, since its tolerances would be guesses.
        held_out: The same for runs that only test the tolerances: they stand in ``settings.csv`` and ``costs.csv``.

    Raises:
        verify.VerifyError: If a run has other parameters, lacks a stage of the core study, or there is no other run.
    """
    runs = {name: verify.stages(base) for name, base in others.items()}
    measured = {stage for found in runs.values() for stage in found}
    here = {
        name: one
        for name, one in verify.stages(paths.results() / profile).items()
        if name in measured or not runs
    }
    _check(profile, here, runs)
    folder = verify.folder(profile)
    building = folder.with_name(f".{profile}-building")
    shutil.rmtree(building, ignore_errors=True)
    for record in here.values():
        _copy(record, building / record.name)
    limits = tolerances(here, runs)
    limits.to_csv(building / "tolerances.csv", index=False, lineterminator="\n")
    studies = ["core", "all"] if verify.study_of(here, profile) == "all" else ["core"]
    judged = pd.concat([verify.verdicts(here, profile, study) for study in studies])
    judged.to_csv(building / "verdicts.csv", index=False, lineterminator="\n")
    machine = {"processor": devices.processor(), "calibration": round(devices.calibration(), 4)}
    records.write_json(machine, building / "machine.json")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    tested = {name: verify.stages(base) for name, base in (held_out or {}).items()}
    whole = costs(profile, {"committed": here, **runs, **tested})
    whole.to_csv(folder / "costs.csv", index=False, lineterminator="\n")
    rows = [_setting("committed", profile, paths.results() / profile, here)]
    rows += [_setting(name, profile, Path(base), runs[name]) for name, base in others.items()]
    rows += [
        _setting(f"{name} (held out)", profile, Path(held_out[name]), found) for name, found in tested.items()
    ]
    pd.DataFrame(rows).to_csv(folder / "settings.csv", index=False, lineterminator="\n")
    return folder


def _check(
    profile: str, here: Mapping[str, records.Record], runs: Mapping[str, Mapping[str, records.Record]]
) -> None:
    core = plan.result_names(profile, "core")
    if not runs:
        raise verify.VerifyError(
            "A tolerance needs at least one run under another setting; name it with --other NAME=FOLDER."
        )
    for name, found in {"the results": here, **runs}.items():
        if missing := [stage for stage in core if stage not in found]:
            raise verify.VerifyError(
                f"In {name}, these stages of {profile} are not finished: {', '.join(missing)}."
            )
        for stage, record in found.items():
            if stage in here and (what := verify.parameters_that_differ(here[stage], record)):
                raise verify.VerifyError(f"In {name}, {stage} was run with other parameters: {what}.")


def _copy(record: records.Record, target: Path) -> None:
    (target / "tables").mkdir(parents=True)
    compared = pairing.tables(record)
    for name in compared:
        shutil.copyfile(record.folder / "tables" / f"{name}.csv", target / "tables" / f"{name}.csv")
    texts = {name: value for name, value in record.metrics.items() if isinstance(value, str)}
    slim = {name: record.data.get(name) for name in KEPT} | {
        "metrics": texts | pairing.further_metrics(record, compared)
    }
    records.write_json(slim, target / "run.json")


def tolerances(
    here: Mapping[str, records.Record], runs: Mapping[str, Mapping[str, records.Record]]
) -> pd.DataFrame:
    """Spread and tolerance of each group of numbers.

    The spread is the largest absolute difference between a number of the committed run and the same number of any other run, over all
    numbers of the group. The tolerance is :data:`FACTOR` times that.

    Returns:
        ``stage, table, group, numbers, spread, measured_in, tolerance, undefined``; ``measured_in`` is the run with the largest
        difference, ``undefined`` whether a number of the group was missing or undefined in some of the runs only.
    """
    parts = []
    for name, found in runs.items():
        for stage in [stage for stage in here if stage in found]:
            numbers, _ = pairing.side_by_side(here[stage], found[stage], here)
            parts.append(numbers.assign(moved=(numbers["found"] - numbers["committed"]).abs(), run=name))
    whole = pd.concat(parts, ignore_index=True)
    rows = []
    for keys, group in whole.groupby(["stage", "table", "group"], sort=False):
        most = group["moved"].max()
        spread = 0.0 if np.isnan(most) else float(most)
        where = group.loc[group["moved"].idxmax(), "run"] if spread else ""
        count = int((group["run"] == group["run"].iloc[0]).sum())
        undefined = bool((group["absent"] | (group["committed"].isna() != group["found"].isna())).any())
        rows.append((*keys, count, spread, where, FACTOR * spread, undefined))
    columns = ["stage", "table", "group", "numbers", "spread", "measured_in", "tolerance", "undefined"]
    return pd.DataFrame(rows, columns=columns)


def _setting(name: str, profile: str, base: Path, found: Mapping[str, records.Record]) -> dict[str, Any]:
    """One row of ``settings.csv``."""
    compared = verify.compare(profile, calibrate=False, base=base)
    return {
        "setting": name,
        "processor": next(iter(found.values())).data["processor"],
        "computed in": "; ".join(
            sorted({record.data["device"].partition(", ")[2] for record in found.values()} - {""})
        ),
        "numbers": len(compared.numbers),
        **compared.counts,
        "verdicts equal": f"{compared.equal_verdicts} of {len(compared.verdicts)}",
    }


def costs(profile: str, runs: Mapping[str, Mapping[str, records.Record]]) -> pd.DataFrame:
    """What each notebook took under each setting.

    Returns:
        One row per notebook (all its networks together), then the core study and, where a run has it, the whole one: ``notebook``, and per
        setting ``<setting>, core-minutes`` and ``<setting>, GiB`` (the largest process).
    """
    core = set(plan.result_names(profile, "core"))
    whole = any(set(found) - core for found in runs.values())
    table: dict[str, dict[str, float]] = {}
    for setting, found in runs.items():
        for stage, record in found.items():
            rows = [
                record.data["notebook"],
                *(["core study"] if stage in core else []),
                *(["whole study"] if whole else []),
            ]
            for row in rows:
                at = table.setdefault(row, {})
                minutes, memory = f"{setting}, core-minutes", f"{setting}, GiB"
                at[minutes] = at.get(minutes, 0) + record.data["cpu_seconds"] / 60
                at[memory] = max(at.get(memory, 0), record.data["peak_rss_mb"] / 1024)
        if whole and not set(found) - core:  # it has run the core study only
            table["whole study"].pop(f"{setting}, core-minutes"), table["whole study"].pop(f"{setting}, GiB")
    order = sorted(table, key=lambda row: (row.endswith("study"), row == "whole study", row))
    return pd.DataFrame([{"notebook": row} | table[row] for row in order]).round(2)
