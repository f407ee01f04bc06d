"""The study at the number of photographs of the Kaggle set: 35,126 small phantom photographs in its layout, at N/4, N/2 and N.

The photographs are drawn once into one folder (about 20 core-minutes for all of them, outside git; an interrupted run goes on). For each size, audit with
near-duplicate search, image store and split (01), fine-tuning with feature store, two epochs and bootstrap (03), paired tests (06) and the report run as
commands of their own, in results and data of their own. The script prints seconds and peak memory of each stage, the costliest cells, and
their growth per doubling. `ours` is the time with N photographs for each N/4 of them, and `other` is the time with N/4. A ratio of 1 is linear growth; above 1, growth is slower than linear.

Seconds and memory also go to ``cost.csv`` in the folder, which ``DRSTUDY_REHEARSAL`` names (default ``data/rehearsal``).
"""

from __future__ import annotations

import csv
import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from side_by_side import options, report

PROFILE = "rehearsal"
PATIENTS = 17563
SIZE = 96
"""Side of the photographs, pixels: small ones, since the number of files is what is rehearsed."""
STAGES = ("01_data_audit", "03_fine_tuning", "06_reliability", "report")
MOST_MEMORY = 2560.0
"""MiB that no process may exceed."""
MOST_GROWTH = 2.0 * 1.07
"""Time per doubling that N log N allows: 2 log(35,126) / log(17,563), which is 2.14."""
FIXED = 5.0
"""Seconds below which a cell is not judged: its start costs more than its work."""


def _draw(task: tuple[str, int, int]) -> None:
    """Write the two eyes of some patients, unless they are there."""
    from PIL import Image

    from drstudy.data.phantom import planning
    from drstudy.data.phantom.rendering import render

    folder, first, last = Path(task[0]), task[1], task[2]
    config = planning.PhantomConfig(n_patients=PATIENTS, size=SIZE, distribution="eyepacs")
    for index in range(2 * first, 2 * last):
        file = folder / f"{index // 2 + 1}_{planning.EYES[index % 2]}.jpeg"
        if not file.is_file():
            part = file.with_suffix(".part")
            Image.fromarray(render(config, index).image).save(part, "JPEG", quality=92)
            part.rename(file)


def photographs(folder: Path, patients: int, workers: int) -> None:
    """Draw the photographs of the first patients into ``folder/all/train``, with ``trainLabels.csv`` beside."""
    from drstudy.data.phantom import planning

    config = planning.PhantomConfig(n_patients=PATIENTS, size=SIZE, distribution="eyepacs")
    train = folder / "all" / "train"
    train.mkdir(parents=True, exist_ok=True)
    tasks = [(str(train), start, min(start + 50, patients)) for start in range(0, patients, 50)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_draw, tasks), 1):
            if done % 20 == 0 or done == len(tasks):
                print(
                    f"drawn: {min(100 * done, 2 * patients)} of {2 * patients}", file=sys.stderr, flush=True
                )
    grades = planning.plan(config)["label"].to_numpy()
    with (folder / "all" / "trainLabels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "level"])
        for index in range(2 * patients):
            rows.writerow([f"{index // 2 + 1}_{planning.EYES[index % 2]}", int(grades[index])])


def subset(folder: Path, patients: int) -> Path:
    """The first patients as a data set of its own, of hard links."""
    own = folder / str(patients)
    (own / "train").mkdir(parents=True, exist_ok=True)
    lines = (folder / "all" / "trainLabels.csv").read_text(encoding="utf-8").splitlines()[: 1 + 2 * patients]
    for line in lines[1:]:
        name = f"{line.split(',')[0]}.jpeg"
        if not (own / "train" / name).exists():
            os.link(folder / "all" / "train" / name, own / "train" / name)
    (own / "trainLabels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return own


def command(folder: Path, stage: str, root: Path) -> tuple[float, float]:
    """Run one stage in a process of its own; returns its seconds and the peak memory in MiB of its largest process."""
    environment = os.environ | {
        "DRSTUDY_RESULTS": str(folder / "results"),
        "DRSTUDY_DATA": str(folder / "data"),
    }
    words = ["report"] if stage == "report" else ["run", stage]
    if stage == "01_data_audit":
        words += ["-p", f"DATA_ROOT={root}"]
    if stage == "03_fine_tuning":
        words += ["--variant", "efficientnet_lite0-seed0"]
    began = time.perf_counter()
    line = [sys.executable, "-m", "drstudy.study.cli", *words, "--profile", PROFILE]
    process = subprocess.Popen(line, env=environment, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(line)} failed; its messages stand above.")
    seconds = time.perf_counter() - began
    records = list((folder / "results" / PROFILE / stage).rglob("run.json"))
    if records:
        return seconds, json.loads(records[0].read_text(encoding="utf-8"))["peak_rss_mb"]
    return seconds, usage.ru_maxrss / 1024


def cells(folder: Path) -> dict[str, float]:
    """Seconds of each code cell, by notebook and first line."""
    found = {}
    for executed in sorted((folder / "results" / PROFILE).rglob("executed.ipynb")):
        for cell in nbformat.read(executed, 4).cells:
            if cell.cell_type == "code" and cell.source.strip():
                name = f"{executed.relative_to(folder / 'results' / PROFILE).parts[0][:2]} {cell.source.splitlines()[0][:70]}"
                found[name] = found.get(name, 0.0) + (cell.metadata["papermill"]["duration"] or 0.0)
    return found


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        threads=2,
        patients=(PATIENTS, 200, "patients of the largest run, two photographs each"),
    )
    folder = Path(os.environ.get("DRSTUDY_REHEARSAL", "data/rehearsal")).resolve()
    photographs(folder, given.patients, given.threads)
    sizes = [given.patients // 4, given.patients // 2, given.patients]
    rows, slow, taken = [], [], {}
    for patients in sizes:
        root, own = subset(folder, patients), folder / f"run{patients}"
        shutil.rmtree(own, ignore_errors=True)  # stores of an earlier run would make this one faster
        for stage in STAGES:
            seconds, memory = command(own, stage, root)
            rows.append((2 * patients, stage, round(seconds, 1), round(memory)))
        taken[patients] = cells(own)
    for before, after in itertools.pairwise(sizes):
        for name, seconds in taken[after].items():
            if taken[before].get(name, 0.0) > FIXED and seconds / taken[before][name] > MOST_GROWTH:
                slow.append(f"{name}: {taken[before][name]:.1f} s to {seconds:.1f} s")
    with (folder / "cost.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("photographs", "stage", "seconds", "peak_mib"), *rows])
    total = {n: sum(row[2] for row in rows if row[0] == 2 * n) for n in sizes}
    dearest = sorted(taken[sizes[-1]].items(), key=lambda item: -item[1])[:10]
    report(
        "whole_size",
        total[sizes[-1]] * sizes[0] / sizes[-1],
        total[sizes[0]],
        f"s for all stages per {2 * sizes[0]} photographs, at {2 * sizes[-1]} and at {2 * sizes[0]}",
        not slow and max(row[3] for row in rows) <= MOST_MEMORY,
        stages=[list(row) for row in rows],
        costliest_cells=[[name, round(seconds, 1)] for name, seconds in dearest],
        faster_than_n_log_n=slow,
    )


if __name__ == "__main__":
    main()
