"""How notebook 03 grows from 384 to 6,144 photographs: processor time and peak memory of whole runs, doubled four times.

Each run is `drstudy run 03` in a process of its own at the input size of profile `smoke`: start-up, feature store, training, predictions and
all. Stores are emptied before each run, or it would find its network trained. The audit (01) before it is not timed. The two smallest
sizes are medians of alternating runs, the larger ones ran once. `ours` is the time of the largest size for as many photographs as the
smallest has, `other` that of the smallest: a ratio of 1 is linear, more is better. Start-up is a large part of the small runs, so doublings
of the large sizes say more; `time_ratio_a_doubling` has them all.

Memory is that of the largest process, in two forms. Its own memory (what Linux calls anonymous, sampled four times a second) is what another size may need
more of, and is judged. The peak of its resident memory also counts the pages of memory-mapped stores that it has read. They grow with the number of
photographs, but the system takes them back whenever it needs memory.

The photographs are small phantoms. 768 distinct eyes are drawn, and each is shown in eight orientations as eyes of other patients: what a photograph shows
costs no time. ``same result`` says that every run trained its network and predicted each validation and test photograph once.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from side_by_side import alternate, options, report
from whole_size import subset

SIZE = 96
"""Side of the photographs and of the network's input, pixels."""
DISTINCT = 384
"""Patients that are drawn; more are these in another orientation."""
REPEATED = 2
"""Number of sizes, the smallest first, that run several times."""
SAMPLED = 0.25
"""Seconds between two looks at the memory of a run."""
RUN = "results/smoke/03_fine_tuning/efficientnet_lite0-seed0"


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        patients=(192, 16, "patients in the smallest run, two photographs each"),
        doublings=(4, 1, "doublings of this number"),
        epochs=(2, 2, "epochs"),
        repeats=(5, 1, "measurements of the two smallest sizes"),
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sizes = [given.patients * 2**step for step in range(given.doublings + 1)]
        photographs(folder, sizes[-1])
        study = {size: Study(folder, size, given) for size in sizes}
        seconds = {}
        for some, repeats in ((sizes[:REPEATED], given.repeats), (sizes[REPEATED:], 1)):
            sides = {str(size): study[size] for size in some}
            found, _ = alternate(sides, repeats, processor_of_children, warm=False) if some else ({}, {})
            seconds |= found
    times = [seconds[str(size)] for size in sizes]
    peaks = [max(study[size].peaks) for size in sizes]
    own = [max(study[size].own) for size in sizes]
    report(
        "scaling",
        times[-1] * sizes[0] / sizes[-1],
        times[0],
        f"s of the processor per {2 * sizes[0]} photographs, of {2 * sizes[-1]} and of {2 * sizes[0]}",
        all(study[size].complete for size in sizes),
        photographs=[2 * size for size in sizes],
        runs=[len(study[size].peaks) for size in sizes],
        processor_seconds=[round(value, 2) for value in times],
        time_ratio_a_doubling=[round(b / a, 3) for a, b in itertools.pairwise(times)],
        own_memory_mib=[round(value) for value in own],
        memory_growth_a_doubling=[round(b / a - 1, 3) for a, b in itertools.pairwise(own)],
        peak_mib_with_mapped_stores=[round(value) for value in peaks],
        stages_seconds_on_the_wall=[round(study[size].wall, 1) for size in sizes],
    )


def own_memory(process: int) -> float:
    """Anonymous resident memory of the largest of a process and its children, MiB; 0 if they have ended."""
    found = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for one in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{one.pid}/status").read_text(encoding="utf-8")
                lines = [line for line in status.splitlines() if line.startswith("RssAnon:")]
                found = max([found, *(float(line.split()[1]) / 1024 for line in lines)])
    return found


def processor_of_children() -> float:
    """Time that the processor spent on the commands that have ended so far, s."""
    times = os.times()
    return times.children_user + times.children_system


def photographs(folder: Path, patients: int) -> None:
    """Small photographs in the layout of the Kaggle set, in ``folder/all``."""
    import numpy as np
    from PIL import Image

    from drstudy.data.phantom import planning
    from drstudy.data.phantom.rendering import render

    config = planning.PhantomConfig(n_patients=DISTINCT, size=SIZE, distribution="eyepacs")
    grades = planning.plan(config)["label"].to_numpy()
    train = folder / "all" / "train"
    train.mkdir(parents=True)
    rows = [("image", "level")]
    for index in range(2 * min(patients, DISTINCT)):
        drawn = render(config, index).image
        for turn in range(8):
            patient = turn * DISTINCT + index // 2
            if patient < patients:
                turned = np.rot90(drawn if turn < 4 else drawn[:, ::-1], turn % 4)
                name = f"{patient + 1}_{planning.EYES[index % 2]}"
                Image.fromarray(np.ascontiguousarray(turned)).save(train / f"{name}.jpeg", quality=92)
                rows.append((name, int(grades[index])))
    rows[1:] = sorted(rows[1:], key=lambda row: (int(row[0].split("_")[0]), row[0]))
    with (folder / "all" / "trainLabels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


class Study:
    """Runs of notebook 03 on the first patients; its audit runs first, once.

    Attributes:
        peaks: Peak of the resident memory of the largest process of each run so far, MiB.
        own: Greatest sampled memory of its own that any process of each run had, MiB.
        wall: Time of the last run on the wall, s.
        complete: Whether each run trained, and predicted every validation and test photograph once.
    """

    def __init__(self, folder: Path, patients: int, given) -> None:
        self.home, self.given = folder / f"run{patients}", given
        self.peaks: list[float] = []
        self.own: list[float] = []
        self.wall, self.complete = 0.0, True
        root = subset(folder, patients)
        self.run("01", "SOURCE=eyepacs", f"DATA_ROOT={root}", f"IMAGE_SIZE={SIZE}")

    def run(self, number: str, *parameters: str) -> float:
        """One stage as a command of its own; returns the greatest memory of its own that any of its processes was seen to have, MiB."""
        environment = os.environ | {
            "DRSTUDY_RESULTS": str(self.home / "results"),
            "DRSTUDY_DATA": str(self.home / "data"),
        }
        command = [sys.executable, "-m", "drstudy.study.cli", "run", number, "--profile", "smoke"]
        variant = ["--variant", "efficientnet_lite0-seed0"] if number == "03" else []
        whole = [*command, *variant, *(f"-p{text}" for text in parameters)]
        process, most = subprocess.Popen(whole, env=environment, stdout=subprocess.DEVNULL), 0.0
        while process.poll() is None:
            most = max(most, own_memory(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLED)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, whole)
        return most

    def __call__(self) -> None:
        for store in ("models", "features"):
            shutil.rmtree(self.home / "data" / store, ignore_errors=True)
        began = time.perf_counter()
        own = (f"INPUT_SIZE={SIZE}", "VIEWS=1", f"EPOCHS={self.given.epochs}")
        self.own.append(self.run("03", *own, f"THREADS={self.given.threads}", "PRECISION=auto"))
        self.wall = time.perf_counter() - began
        record = json.loads((self.home / RUN / "run.json").read_text(encoding="utf-8"))
        self.peaks.append(record["peak_rss_mb"])
        self.complete &= not record["trainings"]["found"] and self.predicted_once()

    def predicted_once(self) -> bool:
        """Whether the predictions are of the validation and test photographs of the split, each once."""
        audit = self.home / "results/smoke/01_data_audit"
        with (audit / "split.csv").open(encoding="utf-8") as file:
            held = [row["image_id"] for row in csv.DictReader(file) if row["split"] in ("validation", "test")]
        with (self.home / RUN / "predictions.csv").open(encoding="utf-8") as file:
            found = [row["image_id"] for row in csv.DictReader(file)]
        return bool(held) and sorted(found) == sorted(held)


if __name__ == "__main__":
    main()
