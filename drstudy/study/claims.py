"""The claims ledger: what the papers claim, what was found here, and a verdict by rule.

A paper declares its claims in a YAML file. Each claim has its place in the paper, the number or direction that it states, where
this study looks for it, and what a test of it needs. Nobody writes a verdict; :func:`judge` finds it:

- **not testable here**: something that the test needs is missing, and the reason names it. A claim about the paper's own networks
  needs the paper's own data and networks that started from ImageNet weights. Any claim needs a network that started from
  pretrained weights, and a finished result.
- **not reproduced**: the 95 % interval, widened by the tolerance, excludes the printed number; or it lies wholly on the other
  side of 0 than the claimed direction.
- **inconclusive**: the interval is wider than the claim's ``widest``, or includes 0 where a direction is claimed, or there is none.
- **reproduced**: the printed number is within tolerance of a narrow enough interval; or the interval of a claimed direction
  excludes 0, in the paper's setting.
- **direction reproduced**: the same for a direction, on other data or other networks. Also a printed number that is not reproduced,
  if the claim states its direction and the interval confirms this direction.

If a claim has several numbers, the worst verdict counts, in the order above.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drstudy.core import paths, records
from drstudy.core.params import ParameterError
from drstudy.papers import registry
from drstudy.papers.base import AUDIT, TRAINING, Interval, OwnData, Paper, is_ablation
from drstudy.show import intervals, style

REPRODUCED, DIRECTION = "reproduced", "direction reproduced"
NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTABLE = "not reproduced", "inconclusive", "not testable here"
WORST_FIRST = (NOT_TESTABLE, NOT_REPRODUCED, INCONCLUSIVE, DIRECTION, REPRODUCED)

FEWEST_SEEDS = 3
"""Least number of runs for which the range over seeds serves as the interval of a number that patients give none, such as a training loss."""


class Evidence(BaseModel):
    """Where one number is looked up.

    Attributes:
        notebook: Notebook whose result has the number.
        backbone: Network of the number. Empty: any network that did not start from random weights.
        table: Name of ``tables/<table>.csv`` of that result. Instead of it, ``measure`` may be given.
        measure: One of :func:`measures`, of the fine-tuned networks; in the settings ``scratch`` and ``any``, of that result.
        where: Columns of the table and the values that choose the row. If several rows fit, the last one is used, which in
            tables of heatmaps is the deepest layer.
        column: Column of the number. Its interval is in ``lo`` and ``hi`` for ``value``, else in ``<column>_lo`` and
            ``<column>_hi``.
        minus: Other backbone whose measure is subtracted.
        printed: The number that the paper prints. Without it, a direction is claimed.
        sign: Claimed side of 0 of the number found: 1 above, -1 below; 0 where only a number is claimed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    notebook: str
    backbone: str = ""
    table: str = ""
    measure: str = ""
    where: dict[str, str] = {}
    column: str = "value"
    minus: str = ""
    printed: float | None = None
    sign: Literal[-1, 0, 1] = 0

    @model_validator(mode="after")
    def _complete(self) -> Evidence:
        if bool(self.table) == bool(self.measure) or (self.measure and self.measure not in measures()):
            raise ValueError(f"evidence is a table, or a measure among {', '.join(measures())}")
        if self.printed is None and not self.sign:
            raise ValueError("evidence has a printed number, a sign, or both")
        return self


class Claim(BaseModel):
    """One claim.

    Attributes:
        id, paper, place, says: What is claimed, and where.
        maps_to: What this study measures for it, in words.
        own_networks: Whether the claim is about the paper's networks on its data; otherwise it is general.
        setting: Kind of the paper's networks: ``pretrained``; ``scratch``, which started from random weights, so that such networks
            count here too; ``any``: a count or a duration, for which neither data nor weights matter.
        evidence: Numbers to look up. Without any, the claim is not testable, and ``needs`` gives the reason.
        tolerance: Largest distance from the interval at which a printed number still counts as the same, in the unit of the number.
        widest: Widest interval (hi - lo) that can decide a printed number, in the unit of the number.
        why: The reason for ``tolerance`` and ``widest``.
        needs: What a test of the claim requires.
        own_data: The data set of the paper's own numbers. The paper's declaration gives it, not a file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    paper: str
    place: str
    says: str
    maps_to: str
    own_networks: bool
    setting: Literal["pretrained", "scratch", "any"] = "pretrained"
    evidence: tuple[Evidence, ...] = ()
    tolerance: Annotated[float, Field(ge=0)] | None = None
    widest: Annotated[float, Field(gt=0)] | None = None
    why: str = ""
    needs: str
    own_data: OwnData | None = None

    @model_validator(mode="after")
    def _tolerance_has_a_reason(self) -> Claim:
        numbers = [item.printed for item in self.evidence if item.printed is not None]
        if numbers and (self.tolerance is None or self.widest is None or not self.why):
            raise ValueError("a printed number needs tolerance, widest and why")
        if numbers and self.tolerance >= min(abs(number) for number in numbers):
            raise ValueError(f"the tolerance {self.tolerance} is not below the number that it guards")
        return self


@dataclass(frozen=True)
class Found:
    """One number of this study. Without an interval, ``lo`` and ``hi`` are NaN. ``lacking`` gives the reason if there is no number, or if
    it does not count."""

    value: float = np.nan
    lo: float = np.nan
    hi: float = np.nan
    lacking: str = ""
    paper_setting: bool = False


def read() -> list[Claim]:
    """All claims of all papers, in the order of the registry and of the files.

    Raises:
        drstudy.core.params.ParameterError: If one is not valid, or two share an id.
    """
    found = [claim for paper in registry.PAPERS for claim in _of_paper(paper)]
    ids = [claim.id for claim in found]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise ParameterError(f"Two claims share an id: {', '.join(twice)}.")
    return found


def _of_paper(paper: Paper) -> list[Claim]:
    if paper.claims is None:
        return []
    found = []
    for entry in yaml.safe_load(paper.claims.read_text(encoding="utf-8")):
        try:
            found.append(Claim(**entry, own_data=paper.own_data))
        except (ValidationError, TypeError) as error:
            raise ParameterError(f"{paths.show(paper.claims)}, claim {entry.get('id')!r}: {error}") from error
    return found


@functools.cache
def measures() -> dict[str, Callable[[records.Record], Interval]]:
    """Numbers of a record that claims may look up beside its tables, by name, of all papers."""
    return {name: measure for paper in registry.PAPERS for name, measure in paper.measures().items()}


def judge(claim: Claim, found: Sequence[Found]) -> tuple[str, str]:
    """Verdict and reason, from the numbers alone.

    Args:
        claim: With one :class:`Evidence` for each of ``found``.
        found: What this study has for them.
    """
    if not found:
        return NOT_TESTABLE, f"needs {claim.needs}"
    lacking = list(dict.fromkeys(item.lacking for item in found if item.lacking))
    if lacking:
        return NOT_TESTABLE, f"needs {claim.needs}; here: {'; '.join(lacking)}"
    single = [_judge(claim, evidence, item) for evidence, item in zip(claim.evidence, found, strict=True)]
    return min(single, key=lambda pair: WORST_FIRST.index(pair[0]))


def _judge(claim: Claim, evidence: Evidence, found: Found) -> tuple[str, str]:
    if np.isnan(found.value):
        return INCONCLUSIVE, "the number is undefined on these images"
    if evidence.printed is not None:
        verdict, reason = _number(claim, evidence.printed, found)
        if verdict == NOT_REPRODUCED and evidence.sign and _side(evidence.sign, found) == 1:
            return DIRECTION, f"{reason}; the interval lies on the claimed side of 0"
    else:
        side = _side(evidence.sign, found)
        if np.isnan(side):
            return INCONCLUSIVE, "there is no interval: too few runs or patients"
        verdict, reason = {
            1: (REPRODUCED, "the interval excludes 0 on the claimed side"),
            -1: (NOT_REPRODUCED, "the interval excludes 0 on the other side"),
            0: (INCONCLUSIVE, "the interval includes 0"),
        }[side]
    if not found.paper_setting:
        verdict = DIRECTION if verdict == REPRODUCED else verdict
        reason += ", on other data or networks than the paper's"
    return verdict, reason


def _number(claim: Claim, printed: float, found: Found) -> tuple[str, str]:
    lo, hi = (found.value, found.value) if np.isnan(found.lo) else (found.lo, found.hi)
    near = lo - claim.tolerance <= printed <= hi + claim.tolerance
    if np.isnan(found.lo):
        where = f"{'' if near else 'not '}within the tolerance of the number found"
        return REPRODUCED if near else NOT_REPRODUCED, f"the printed {printed:g} is {where}"
    if not near:
        return NOT_REPRODUCED, f"the printed {printed:g} lies outside the interval ± tolerance"
    if hi - lo > claim.widest:
        return INCONCLUSIVE, f"the interval is wider than {claim.widest:g}"
    return REPRODUCED, f"the printed {printed:g} lies inside the interval ± tolerance"


def _side(sign: int, found: Found) -> float:
    """1 if the interval lies on the claimed side of 0, -1 if on the other side, 0 if it includes 0; NaN without an interval.

    An interval of no width counts as none: where all patients agree (such as no error of a kind), no resample can differ.
    """
    if np.isnan(found.lo) or found.lo == found.hi:
        return np.nan
    return sign * (1.0 if found.lo > 0 else -1.0 if found.hi < 0 else 0.0)


def look_up(claim: Claim, results: Sequence[records.Record]) -> list[Found]:
    """The numbers that the finished results of one profile have for a claim, one per evidence."""
    return [_look_up(claim, evidence, results) for evidence in claim.evidence]


def _look_up(claim: Claim, evidence: Evidence, results: Sequence[records.Record]) -> Found:
    results = [record for record in results if not is_ablation(record)]
    candidates = [r for r in results if r.data["notebook"] == evidence.notebook]
    if not candidates:
        return Found(lacking=f"{evidence.notebook} has not run")
    if claim.setting == "any":
        return _found(candidates[0], evidence, paper_setting=True)
    if claim.setting == "scratch":
        data, full = _data(claim.own_data, results)
        if claim.own_networks and not full:
            return Found(lacking=data)
        return _found(candidates[0], evidence, paper_setting=full)
    networks = _networks(results)
    named = [
        name
        for name in (evidence.backbone, evidence.minus, evidence.where.get("run", "").partition("_seed")[0])
        if name
    ]
    for name in named:
        if name not in networks:
            return Found(lacking=f"{style.BACKBONE_NAMES.get(name, name)} was not trained")
    if not named:
        candidates = [r for r in candidates if _weights(r) != "none"]
        if not candidates:
            return Found(lacking="only networks that started from random weights")
    weights = {name: networks[name][0].metrics["weights_used"] for name in named} or {
        "": _weights(candidates[0])
    }
    data, full = _data(claim.own_data, results)
    paper_setting = full and all(used == "imagenet" for used in weights.values())
    if "none" in weights.values():
        lack = ", ".join(
            style.BACKBONE_NAMES.get(name, name) for name, used in weights.items() if used == "none"
        )
        return Found(
            lacking=f"{data}; {lack} started from random weights"
            if claim.own_networks
            else f"{lack} started from random weights"
        )
    if claim.own_networks and not paper_setting:
        return Found(lacking=data if not full else f"weights {', '.join(sorted(set(weights.values())))}")
    if evidence.measure:
        chosen = [networks[name] for name in named] or [[candidates[0]]]
        return Found(*_measured(evidence.measure, chosen), paper_setting=paper_setting)
    return _found(candidates[0], evidence, paper_setting)


def _found(record: records.Record, evidence: Evidence, paper_setting: bool) -> Found:
    """The number of one record, from its table or by a measure of it."""
    if evidence.measure:
        return Found(*measures()[evidence.measure](record), paper_setting=paper_setting)
    row = _row(record, evidence)
    if row is None:
        chosen = ", ".join(f"{column} {value!r}" for column, value in evidence.where.items())
        return Found(lacking=f"{record.name} has no row of {evidence.table} with {chosen}")
    ends = ("lo", "hi") if evidence.column == "value" else (f"{evidence.column}_lo", f"{evidence.column}_hi")
    value, lo, hi = (float(row[name]) for name in (evidence.column, *ends))
    return Found(value, lo, hi, paper_setting=paper_setting)


def _row(record: records.Record, evidence: Evidence) -> pd.Series | None:
    file = record.folder / "tables" / f"{evidence.table}.csv"
    if not file.is_file():
        return None
    rows = pd.read_csv(file)
    for column, wanted in evidence.where.items():
        rows = rows[rows[column].astype(str) == wanted] if column in rows else rows.iloc[:0]
    return rows.iloc[-1] if len(rows) else None


def _networks(results: Sequence[records.Record]) -> dict[str, list[records.Record]]:
    """Records of fine-tuned networks by backbone, in the order of their seeds."""
    found: dict[str, list[records.Record]] = {}
    for record in sorted(
        (r for r in results if r.data["notebook"] == TRAINING), key=lambda r: r.params["SEED"]
    ):
        found.setdefault(record.params["BACKBONE"], []).append(record)
    return found


def _weights(record: records.Record) -> str:
    """What the network behind a result started from; where it trained none, that of the network that it explains."""
    if "MODEL" in record.params and "weights_used" not in record.metrics:
        record = records.load(record.params["MODEL"])
    return record.metrics.get("weights_used", "none")


def _data(own: OwnData | None, results: Sequence[records.Record]) -> tuple[str, bool]:
    """The data in words, and whether they are the paper's own data."""
    audits = [r for r in results if r.data["notebook"] == AUDIT]
    if not audits:
        return "no data were audited", False
    source, images = audits[0].params["SOURCE"], audits[0].metrics["n_images"]
    return f"{images:,} images of {source}", own == OwnData(source, images)


def _measured(name: str, chosen: list[list[records.Record]]) -> Interval:
    """A measure of one network's runs, or the first network's minus the second's, seed by seed.

    A measure without an interval of its own gets the range over seeds, if there are enough seeds.
    """
    values = [[measures()[name](record) for record in runs] for runs in chosen]
    if len(values) == 2:
        values = [[(a[0] - b[0], np.nan, np.nan) for a, b in zip(*values)]]
    first = values[0]
    if len(first) < FEWEST_SEEDS or not np.isnan(first[0][1]):
        return first[0]
    numbers = [value for value, _, _ in first]
    return float(np.mean(numbers)), min(numbers), max(numbers)


def ledger(results: Sequence[records.Record]) -> pd.DataFrame:
    """Every claim with what was found and its verdict, as texts; one row per claim.

    Args:
        results: All finished records of one profile, as :func:`drstudy.core.records.find` gives them.

    Raises:
        drstudy.core.params.ParameterError: As :func:`read`.
    """
    rows = []
    for claim in read():
        found = look_up(claim, results)
        verdict, reason = judge(claim, found)
        rows.append(
            {
                "claim": claim.says,
                "place": f"{claim.paper}, {claim.place}",
                "measured by": claim.maps_to,
                "found": "; ".join(_text(item) for item in found if not item.lacking) or "–",
                "verdict": verdict,
                "reason": reason,
                "tolerance": f"± {claim.tolerance:g}: {claim.why}"
                if claim.tolerance is not None
                else claim.why or "–",
            }
        )
    return pd.DataFrame(rows)


def verdicts(results: Sequence[records.Record]) -> dict[str, tuple[str, str]]:
    """Verdict and reason of every claim, by its identifier.

    Args:
        results: As in :func:`ledger`.
    """
    return {claim.id: judge(claim, look_up(claim, results)) for claim in read()}


def _text(found: Found) -> str:
    return intervals.text(found.value, found.lo, found.hi, significant=3)


def write(profile: str) -> pd.DataFrame:
    """Write ``results/<profile>/claims.csv`` from the finished results; returns the table."""
    table = ledger(records.find(profile))
    table.insert(0, "profile", profile)
    with paths.atomic(paths.results() / profile / "claims.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return table
