"""Growth of notebook 03 with the number of images: time and peak memory of whole runs at N, 2N and 4N images.

Each run is `drstudy run 03` in a separate process, including start-up, feature store, training and predictions. The audit (01) before it is not timed. `ours`
is the time of the run with 4N images for each N of them, and `other` is the time of the run with N images. A ratio of 1 is linear growth; above 1, growth is slower than linear.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import alternate, options, report


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        patients=(48, 16, "patients in the smallest run, two images each"),
        epochs=(8, 2, "epochs"),
        repeats=(5, 1, "measurements"),
    )
    with tempfile.TemporaryDirectory() as scratch:
        sizes = [given.patients * factor for factor in (1, 2, 4)]
        memory: dict[int, list[float]] = {size: [] for size in sizes}

        def run(number: str, patients: int, *parameters: str) -> None:
            folder = Path(scratch) / str(patients)
            environment = os.environ | {
                "DRSTUDY_RESULTS": str(folder / "results"),
                "DRSTUDY_DATA": str(folder / "data"),
            }
            command = [sys.executable, "-m", "drstudy.study.cli", "run", number, "--profile", "smoke"]
            variant = ["--variant", "efficientnet_lite0-seed0"] if number == "03" else []
            given_parameters = [f"-p{text}" for text in parameters]
            subprocess.run(
                [*command, *variant, *given_parameters],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )

        def train(patients: int) -> None:
            run("03", patients, f"EPOCHS={given.epochs}", f"THREADS={given.threads}", "PRECISION=auto")
            record = (
                Path(scratch)
                / str(patients)
                / "results/smoke/03_fine_tuning/efficientnet_lite0-seed0/run.json"
            )
            memory[patients].append(json.loads(record.read_text(encoding="utf-8"))["peak_rss_mb"])

        for size in sizes:
            run("01", size, f"N_PATIENTS={size}")
        seconds, _ = alternate({str(size): lambda size=size: train(size) for size in sizes}, given.repeats)
        times = [seconds[str(size)] for size in sizes]
        peaks = [max(memory[size]) for size in sizes]
        report(
            "scaling",
            times[2] / 4,
            times[0],
            f"s a run of {2 * sizes[0]} images (of {2 * sizes[2]}: for each {2 * sizes[0]})",
            True,
            images=[2 * size for size in sizes],
            seconds=[round(value, 2) for value in times],
            time_ratio_a_doubling=[round(b / a, 3) for a, b in itertools.pairwise(times)],
            peak_mib=[round(value) for value in peaks],
            memory_growth_a_doubling=[round(b / a - 1, 3) for a, b in itertools.pairwise(peaks)],
        )


if __name__ == "__main__":
    main()
