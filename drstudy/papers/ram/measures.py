"""Numbers of the side-by-side timing of RAM and its baseline that claims look up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from drstudy.core.records import Record
from drstudy.papers.base import Interval


def time_saved(kind: str) -> Callable[[Record], Interval]:
    """Percent of training time that RAM saves over its baseline, from turns taken side by side; over turns, not patients."""

    def measure(record: Record) -> Interval:
        rows = pd.read_csv(record.path("timings.csv"))
        row = rows[rows["kind"] == kind]
        return tuple(float(row[name].iloc[0]) if len(row) else np.nan for name in ("value", "lo", "hi"))

    return measure


MEASURES = {"time_saved_net5": time_saved("net5"), "time_saved_net4": time_saved("net4")}
"""Name of a measure, as ``claims.yaml`` writes it, to its function."""
