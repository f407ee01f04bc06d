"""The numbers that the smoke profile must give: ``tests/expected/smoke.json``, each with a tolerance and the reason for it.

    python tests/expectations.py     measures the values, and their spread over seeds, anew (some five minutes)

A tolerance guards against another CPU's rounding, not against a change of the code. It is refused where it is wider than
what it guards: at or above the value itself, or at or above what another seed would change.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = Path(__file__).resolve().parent / "expected" / "smoke.json"
SEEDS = range(5)
TRAINED = "03_fine_tuning/efficientnet_lite0-seed0"


@dataclass(frozen=True)
class Expectation:
    """One number.

    Attributes:
        stage: ``<notebook>[/<variant>]`` of the smoke profile.
        metric: Name in its ``run.json``.
        value, tolerance: Found must be within ``tolerance`` of ``value``; 0 is for counts, which are exact.
        reason: Why the tolerance is what it is.
        seed_sd: Standard deviation over seeds 0 to 4 of training; None where no training is behind the number.
    """

    stage: str
    metric: str
    value: float
    tolerance: float
    reason: str
    seed_sd: float | None = None

    def __post_init__(self) -> None:
        name = f"{self.stage} {self.metric}"
        if not self.reason.strip():
            raise ValueError(f"{name}: a tolerance needs its reason.")
        if self.tolerance < 0:
            raise ValueError(f"{name}: the tolerance {self.tolerance} is below 0.")
        if 0 < abs(self.value) <= self.tolerance or (self.value == 0 and self.tolerance > 0):
            raise ValueError(
                f"{name}: the tolerance {self.tolerance} is not below the value {self.value}: 0 would pass."
            )
        if self.seed_sd is not None and self.tolerance >= self.seed_sd:
            raise ValueError(
                f"{name}: the tolerance {self.tolerance} is not below {self.seed_sd}, the spread over seeds."
            )

    def holds(self, found: float) -> bool:
        """Whether a number found agrees."""
        return abs(found - self.value) <= self.tolerance


def load(file: Path = FILE) -> list[Expectation]:
    """Read the expectations.

    Raises:
        ValueError: If one is not honest: no reason, or a tolerance as wide as what it guards.
        TypeError: If a field is missing or unknown.
    """
    return [Expectation(**entry) for entry in json.loads(file.read_text())]


def measure() -> None:
    """Run the smoke profile, and its training with other seeds, in a temporary folder; write values and spreads."""
    with tempfile.TemporaryDirectory(prefix="drstudy-expected-") as folder:
        environment = os.environ | {
            "DRSTUDY_RESULTS": f"{folder}/results",
            "DRSTUDY_DATA": f"{folder}/data",
            "OMP_NUM_THREADS": "1",
        }

        def drstudy(*arguments: str) -> None:
            subprocess.run([sys.executable, "-m", "drstudy.cli", *arguments], check=True, env=environment)

        def metrics(stage: str) -> dict[str, float]:
            return json.loads(Path(folder, "results", "smoke", stage, "run.json").read_text())["metrics"]

        drstudy("reproduce", "--profile", "smoke", "--study", "all")
        runs = [metrics(TRAINED)]
        for seed in SEEDS[1:]:
            variant = f"seed{seed}"
            setting = ("-p", f"SEED={seed}", "-p", f"VARIANT={variant}")
            drstudy("run", "03", "--profile", "smoke", "--variant", "efficientnet_lite0-seed0", *setting)
            runs.append(metrics(f"03_fine_tuning/{variant}"))
        entries = json.loads(FILE.read_text())
        for entry in entries:
            entry["value"] = metrics(entry["stage"])[entry["metric"]]
            if entry["stage"] == TRAINED and entry["tolerance"]:
                entry["seed_sd"] = round(statistics.stdev(run[entry["metric"]] for run in runs), 4)
        checked = [asdict(Expectation(**entry)) for entry in entries]
    FILE.write_text(json.dumps(checked, indent=1) + "\n")


if __name__ == "__main__":
    measure()
