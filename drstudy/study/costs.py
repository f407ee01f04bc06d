"""Measured costs of each stage, and the estimate that `drstudy reproduce` gives from them.

``reference/costs/<profile>.json`` is committed. `drstudy costs` writes it from the records of a finished run, so that no time is ever typed. A stage whose
last run on this machine is on record is estimated from that.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from drstudy.core import paths, records
from drstudy.papers.base import Stage

HERE = "this machine"


@dataclass(frozen=True)
class Cost:
    """What one run of a stage took.

    Attributes:
        minutes: Time on the wall, minutes.
        core_minutes: Time of all processor cores together, minutes.
        processor: On which it was measured, as :func:`drstudy.core.devices.processor` names it; :data:`HERE` for this machine's own last run.
    """

    minutes: float
    core_minutes: float
    processor: str

    def on(self, stage: Stage) -> float:
        """Minutes for which the stage occupies its core, or all cores if it uses the whole machine."""
        if stage.whole_machine:
            return self.minutes
        return max(self.minutes, self.core_minutes)


@dataclass(frozen=True)
class Estimate:
    """What is left to do, by measured costs.

    Attributes:
        minutes: Time on the wall of the measured stages, run side by side on the given cores, minutes.
        core_minutes: Their time of all cores together, minutes.
        cores: Cores that were assumed.
        processors: On which the costs were measured.
        unmeasured: Names of the stages without a measured cost, which are not counted.
    """

    minutes: float
    core_minutes: float
    cores: int
    processors: tuple[str, ...]
    unmeasured: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The estimate in words, with what it rests on and what it leaves out."""
        if not self.processors:
            return "none, since no run of these stages has been measured"
        cores = f"{self.cores} core" + ("s" if self.cores > 1 else "")
        said = (
            f"about {spoken(self.minutes)} on {cores} ({self.core_minutes:.1f} core-minutes, as measured on "
            f"{' and '.join(self.processors)}; less where trained networks are found again)"
        )
        if self.unmeasured:
            said += f"; not counted, since never measured: {', '.join(self.unmeasured)}"
        return said


def file(profile: str) -> Path:
    """The committed costs of a profile, whether they exist or not."""
    return paths.root() / "reference" / "costs" / f"{profile}.json"


def of_record(record: records.Record) -> Cost | None:
    """What the run of a record took; ``None`` if it says nothing about a full run, since it found trained networks in the store or is of an
    older form."""
    data = record.data
    if (data.get("trainings") or {}).get("found") or not data.get("seconds") or not data.get("cpu_seconds"):
        return None
    return Cost(
        round(data["seconds"] / 60, 3), round(data["cpu_seconds"] / 60, 3), data.get("processor") or ""
    )


def write(profile: str, run: Path | None = None) -> Path:
    """Write the committed costs of a profile from the records of a run. A stage that the run did not measure keeps its earlier entry.

    Args:
        profile: Name of the profile.
        run: Folder that looks like ``results/<profile>``; default: that of this clone.

    Returns:
        The file.

    Raises:
        records.RecordError: If the run has no record with a measured cost.
    """
    found = {
        record.name.removeprefix(f"{profile}/"): of_record(record)
        for record in records.below(run or paths.results() / profile)
    }
    measured = {name: vars(cost) for name, cost in found.items() if cost}
    if not measured:
        raise records.RecordError(
            f"No stage of {profile} has a measured cost. Run `drstudy reproduce --profile {profile}` with an empty trained-model store first."
        )
    entries = {name: vars(cost) for name, cost in read(profile).items()} | measured
    target = file(profile)
    records.write_json({"profile": profile, "stages": dict(sorted(entries.items()))}, target)
    return target


def read(profile: str) -> dict[str, Cost]:
    """The committed costs of a profile by the names of its stages (``<notebook>[/<variant>]``); empty if it was never measured."""
    source = file(profile)
    if not source.is_file():
        return {}
    content = json.loads(source.read_text(encoding="utf-8"))
    return {name: Cost(**entry) for name, entry in content["stages"].items()}


def known(stages: Iterable[Stage]) -> dict[str, Cost]:
    """Measured costs of stages by result folder: this machine's own last run where it is on record, else the committed ones."""
    found, committed = {}, {}
    for stage in stages:
        committed.setdefault(stage.profile, read(stage.profile))
        try:
            own = of_record(records.load(stage.folder))
        except records.RecordError:
            own = None
        cost = (
            Cost(own.minutes, own.core_minutes, HERE) if own else committed[stage.profile].get(stage.result)
        )
        if cost:
            found[stage.folder] = cost
    return found


def estimate(stages: Mapping[str, Stage], costs: Mapping[str, Cost], cores: int) -> Estimate:
    """What a number of stages will take.

    Args:
        stages: Name to stage, each after those that it needs.
        costs: Of :func:`known`.
        cores: Stages that may run side by side.
    """
    measured = {name: stage for name, stage in stages.items() if stage.folder in costs}
    used = [costs[stage.folder] for stage in measured.values()]
    processors = tuple(dict.fromkeys(cost.processor for cost in used))
    first = urgent(measured.values(), costs, cores)
    ahead = _with_needs(first, measured.values()) if first else ()
    return Estimate(
        together([*measured.values()], costs, cores, ahead),
        sum(cost.core_minutes for cost in used),
        cores,
        processors,
        tuple(name for name in stages if name not in measured),
    )


def together(
    stages: Iterable[Stage], costs: Mapping[str, Cost], cores: int, first: Collection[str] = ()
) -> float:
    """Minutes in which stages with known costs end, if each starts as soon as what it needs is there and a core is free.

    Args:
        stages: Each after those that it needs.
        costs: Cost of each by result folder.
        cores: Stages that may run side by side.
        first: Result folders of stages that start before others that could start too.
    """
    waiting, running = sorted(stages, key=lambda stage: stage.folder not in first), []
    open_folders, now = {stage.folder for stage in waiting}, 0.0
    free = cores
    while waiting or running:
        for stage in [one for one in waiting if not open_folders & set(one.needs)]:
            asked = cores if stage.whole_machine else 1
            if asked <= free:
                free -= asked
                waiting.remove(stage)
                heapq.heappush(running, (now + costs[stage.folder].on(stage), stage.folder, asked))
        if not running:
            raise ValueError(f"Stages need each other in a circle: {', '.join(one.name for one in waiting)}.")
        now, folder, asked = heapq.heappop(running)
        open_folders.discard(folder)
        free += asked
    return now


def urgent(stages: Iterable[Stage], costs: Mapping[str, Cost], cores: int) -> Stage | None:
    """The stage that, put first together with all that it needs, lets the stages end soonest; ``None`` if no such order is any better.

    A long chain of notebooks that starts last leaves all cores but one idle at the end.

    Args:
        stages, costs, cores: As of :func:`together`; stages without a cost count nothing.
    """
    known = [stage for stage in stages if stage.folder in costs]
    best, least = None, together(known, costs, cores)
    for stage in known:
        minutes = together(known, costs, cores, _with_needs(stage, known))
        if minutes < least:
            best, least = stage, minutes
    return best


def _with_needs(stage: Stage, stages: Iterable[Stage]) -> set[str]:
    """Result folders of a stage and of all that it needs, directly or not."""
    needs, found, left = {one.folder: one.needs for one in stages}, set(), [stage.folder]
    while left:
        folder = left.pop()
        if folder not in found:
            found.add(folder)
            left += needs.get(folder, ())
    return found


def spoken(minutes: float) -> str:
    """A time in words: ``40 seconds``, ``5 minutes``, ``2.5 hours``."""
    if minutes < 1.5:
        return f"{max(round(minutes * 6) * 10, 10)} seconds"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
