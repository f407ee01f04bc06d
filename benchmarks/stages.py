"""Where the time of a finished study goes: wall time, core-minutes and peak memory of each stage, and the ten costliest cells.

Reads the records and the executed notebooks of the profile `demo` (`make reproduce STUDY=all` first, on a machine that does nothing else); it
runs nothing, so `--quick` changes nothing. The tables are printed before the lines of results. `ours` is the time, in minutes, in which the recorded
stages end on two cores if each starts as soon as its inputs are there (kernels and imports inside of a stage are counted; the start of a command is
not: see overhead.py). `other` is the budget of the study: 9 minutes for its core, 35 for all. A study gets no line, and the stages are named, if some
are not finished, found trained networks in the store, or ran on another kind of processor than this one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import nbformat
from side_by_side import options, report

BUDGETS = {"core": 9.0, "all": 35.0}
"""Minutes on two cores."""

CORES = 2
COSTLIEST = 10
PROFILE = "demo"


def main() -> None:
    options(__doc__.splitlines()[0])
    from drstudy.core import devices, records
    from drstudy.study import costs, plan

    for study, budget in BUDGETS.items():
        stages = plan.plan(PROFILE, study)
        finished, missing = {}, []
        for stage in stages:
            try:
                finished[stage.name] = records.load(stage.folder)
            except records.RecordError:
                missing.append(stage.name)
        if not finished:
            print(f"stages: no stage of {PROFILE} is finished; run make reproduce first", file=sys.stderr)
            return
        reused = [name for name, record in finished.items() if (record.data["trainings"] or {}).get("found")]
        elsewhere = [name for name, one in finished.items() if one.data["processor"] != devices.processor()]
        ten = costliest({name: record.folder for name, record in finished.items()})
        print(f"\n{PROFILE}, study {study}: {len(finished)} of {len(stages)} stages\n")
        print(table(["stage", "minutes", "core-minutes", "peak MiB"], rows_of(finished)))
        print(f"\nThe {COSTLIEST} costliest cells\n")
        print(table(["stage", "seconds", "cell"], ten), flush=True)
        reasons = {
            "are not finished": missing,
            "found trained networks": reused,
            "ran on another kind of processor": elsewhere,
        }
        for what, names in reasons.items():
            if names:
                print(
                    f"stages: no line for the study {study}, since these {what}: {', '.join(names)}",
                    file=sys.stderr,
                )
        if any(reasons.values()):
            continue
        measured = {stage.folder: costs.of_record(finished[stage.name]) for stage in stages}
        minutes = costs.together(stages, measured, CORES)
        peaks = {name: record.data["peak_rss_mb"] for name, record in finished.items()}
        largest = max(peaks, key=peaks.get)
        report(
            f"stages of {PROFILE}, study {study}",
            minutes,
            budget,
            f"minutes on {CORES} cores, by the records of {len(stages)} stages, against the budget",
            None,
            core_minutes=sum(cost.core_minutes for cost in measured.values()),
            largest_peak_mib=peaks[largest],
            largest_peak_in=largest,
            costliest_cells=[list(row) for row in ten],
        )


def rows_of(finished: dict) -> list[tuple]:
    """Name, minutes, core-minutes and peak memory of each stage, the costliest first, and their sum."""
    rows = [
        (name, one.data["seconds"] / 60, one.data["cpu_seconds"] / 60, one.data["peak_rss_mb"])
        for name, one in finished.items()
    ]
    rows.sort(key=lambda row: -row[2])
    _, minutes, core, peaks = zip(*rows)
    return [*rows, ("together", sum(minutes), sum(core), max(peaks))]


def costliest(folders: dict) -> list[tuple[str, float, str]]:
    """Stage, seconds on the wall, section and first line of the costliest cells of some executed notebooks."""
    cells = []
    for name, folder in folders.items():
        section = ""
        for cell in nbformat.read(folder / "executed.ipynb", 4).cells:
            if cell.cell_type == "markdown":
                headings = [line for line in cell.source.splitlines() if line.startswith("#")]
                section = headings[-1].lstrip("# ") if headings else section
            elif cell.source.strip():
                seconds = cell.metadata["papermill"]["duration"] or 0.0
                cells.append((name, round(seconds, 1), f"{section}: {beginning(cell.source)}"))
    return sorted(cells, key=lambda cell: -cell[1])[:COSTLIEST]


def beginning(source: str) -> str:
    """First line of a cell that is no comment, shortened."""
    lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return (lines or source.splitlines())[0].strip()[:80]


def table(heads: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Text with columns of equal width, numbers with one digit after the point."""
    texts = [
        [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in [heads, *rows]
    ]
    widths = [max(map(len, column)) for column in zip(*texts)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in texts
    )


if __name__ == "__main__":
    main()
