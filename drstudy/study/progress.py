"""How far a run is: which stages have finished since it began, and about how long the others will take."""

from __future__ import annotations

import time
from collections.abc import Mapping

from drstudy.core import records
from drstudy.papers.base import Stage
from drstudy.study import costs


class Watch:
    """Looks at the records of the stages that have to run, and says when one more has finished.

    Args:
        stages: Name to stage of those that have to run, each after those that it needs.
        cores: Stages that may run side by side.
    """

    def __init__(self, stages: Mapping[str, Stage], cores: int) -> None:
        self.began, self.stages, self.cores = time.time(), dict(stages), cores
        self.costs = costs.known(stages.values())
        self.finished: dict[str, float] = {}

    @property
    def estimate(self) -> costs.Estimate:
        """What the stages that have not finished will take, as it was measured."""
        left = {name: stage for name, stage in self.stages.items() if name not in self.finished}
        return costs.estimate(left, self.costs, self.cores)

    def urgent(self) -> Stage | None:
        """The stage that should start before others, with what it needs (:func:`drstudy.study.costs.urgent`)."""
        return costs.urgent(self.stages.values(), self.costs, self.cores)

    def look(self) -> str:
        """A line on the progress if another stage has finished since the last look; else empty."""
        before = len(self.finished)
        for name, stage in self.stages.items():
            if name not in self.finished and (minutes := self._minutes(stage)) is not None:
                self.finished[name] = minutes
        if len(self.finished) == before:
            return ""
        spent = costs.spoken((time.time() - self.began) / 60)
        said = f"progress: {len(self.finished)} of {len(self.stages)} stages finished after {spent}"
        left = self.estimate
        if len(self.finished) == len(self.stages):
            return said
        if not left.processors:
            return f"{said}; no estimate of the rest, which was never measured"
        said += f"; about {costs.spoken(left.minutes * self.pace())} left"
        return said + (
            f", and {len(left.unmeasured)} stages that were never measured" if left.unmeasured else ""
        )

    def pace(self) -> float:
        """How much longer the finished stages took than was measured before: a slower machine, or one that does something else too. 1 as
        long as too little has finished to tell."""
        pairs = [
            (minutes, self.costs[self.stages[name].folder].on(self.stages[name]))
            for name, minutes in self.finished.items()
            if self.stages[name].folder in self.costs
        ]
        took, expected = sum(one for one, _ in pairs), sum(other for _, other in pairs)
        return took / expected if expected > 0.2 else 1.0

    def _minutes(self, stage: Stage) -> float | None:
        """Minutes that a stage took, if it has finished since the run began; else None."""
        try:
            if stage.record.stat().st_mtime < self.began:
                return None
            data = records.load(stage.folder).data
        except (OSError, records.RecordError):
            return None
        return costs.Cost(data.get("seconds", 0) / 60, data.get("cpu_seconds", 0) / 60, "").on(stage)
