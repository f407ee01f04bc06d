"""What would change a verdict of the claims ledger: the rule of each claim, solved for the deciding number.

Nothing here is typed per claim. :func:`turns` takes the rule of :func:`drstudy.study.claims.judge`, the claim's tolerance and widest interval,
and what was found. It says which limit of the interval would have to pass which threshold, and what the verdict would then be, everything else
being equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from drstudy.show import intervals, readable, style
from drstudy.study import claims
from drstudy.study.claims import DIRECTION, NOT_TESTABLE, REPRODUCED

Moved = Literal["value", "lower limit", "upper limit", "width"]
"""What of a number would have to be another one."""


PAST = 1e-9
"""How far past a threshold a number is moved to see the verdict there, as a share of the threshold or of 1."""


@dataclass(frozen=True)
class Change:
    """One change of one number.

    Attributes:
        what: The value, a limit of its interval, or the interval's width.
        now: What it is.
        threshold: What it would have to pass.
        direction: To which side.
        reached: Whether the threshold itself is enough; otherwise it has to be passed.
    """

    what: Moved
    now: float
    threshold: float
    direction: Literal["above", "below"]
    reached: bool = False


@dataclass(frozen=True, kw_only=True)
class Turn(Change):
    """A change that gives another verdict on this number.

    Attributes:
        verdict: The verdict then.
    """

    verdict: str

    @property
    def threshold_text(self) -> str:
        """``at most 0``, ``above 12.45``: with as many digits as tell it from what the number is."""
        bound = (
            ("at least" if self.reached else "above")
            if self.direction == "above"
            else ("at most" if self.reached else "below")
        )
        return f"{bound} {_apart(self.now, self.threshold)[1]}"


def sentences(turned: Sequence[Turn]) -> list[str]:
    """One sentence for each quantity and verdict that it would give."""
    grouped: dict[tuple[str, str], list[Turn]] = {}
    for turn in turned:
        grouped.setdefault((turn.what, turn.verdict), []).append(turn)
    found = []
    for (what, verdict), same in grouped.items():
        subject = "width of the interval" if what == "width" else what
        now = max((_apart(turn.now, turn.threshold)[0] for turn in same), key=len)
        bounds = " or ".join(turn.threshold_text for turn in same)
        found.append(f"If the {subject} (now {now}) were {bounds}, the verdict would be “{verdict}”.")
    return found


def _apart(one: float, threshold: float) -> tuple[str, str]:
    """A number with three significant digits, or as many more as put it on its side of the threshold; and the threshold, as it is."""
    side = one > threshold
    digits = (
        few
        for few in range(3, 10)
        if (rounded := float(f"{one:.{few}g}")) != threshold and (rounded > threshold) == side
    )
    return short(one, next(digits, 10)), short(threshold, 6)


@dataclass(frozen=True)
class Part:
    """One number of a claim.

    Attributes:
        about: Which number it is, in words.
        found: It, with its interval; a dash where there is none.
        verdict, reason: On this number alone.
        rule: By which the verdict follows.
        changes: Sentences that say what would change it.
        bounds: Where it stands; see :class:`Bounds`. None where there is no number.
    """

    about: str
    found: str
    verdict: str
    reason: str
    rule: str
    changes: tuple[str, ...]
    bounds: Bounds | None = None


@dataclass(frozen=True)
class Bounds:
    """A number beside its threshold, in its own unit: ``lo`` and ``hi`` equal ``value`` where there is no interval.

    Attributes:
        value, lo, hi: What was found.
        low, high: The printed number less and plus its tolerance, or twice 0 where a direction is claimed.
    """

    value: float
    lo: float
    hi: float
    low: float
    high: float

    @property
    def places(self) -> dict[str, float]:
        """All five in percent of a strip that has room for them, by name."""
        numbers = {name: getattr(self, name) for name in ("value", "lo", "hi", "low", "high")}
        least, most = min(numbers.values()), max(numbers.values())
        span = most - least or max(abs(most), 1.0)
        return {name: round(8 + 84 * (one - least) / span, 2) for name, one in numbers.items()}


def short(value: float, significant: int = 3) -> str:
    """Significant digits, without ``e-07``."""
    return readable.plain(intervals.text(value, math.nan, math.nan, significant=significant))


def turns(claim: claims.Claim, evidence: claims.Evidence, found: claims.Found) -> list[Turn]:
    """The nearest single change of a number that gives each other verdict on it, that of the nearest threshold first.

    Args:
        claim: For its tolerance and widest interval.
        evidence: One of the claim's.
        found: The number found for it.

    Returns:
        Nothing where the number is undefined or lacking, or where a direction has no interval.
    """
    if found.lacking or math.isnan(found.value):
        return []
    tried = _of_direction(found) if evidence.printed is None else _of_number(claim, evidence, found)
    now = _verdict(claim, evidence, found)
    verdicts = [_verdict(claim, evidence, _moved(found, one, evidence)) for one in tried]
    turned = [Turn(**vars(one), verdict=verdict) for one, verdict in zip(tried, verdicts) if verdict != now]
    nearest: dict[tuple[str, ...], Turn] = {}
    for turn in sorted(turned, key=lambda turn: abs(turn.now - turn.threshold)):
        holds = now in (
            REPRODUCED,
            DIRECTION,
        )  # then both ends of what is allowed matter, else the nearest way to each verdict
        nearest.setdefault((turn.verdict, turn.what, turn.direction) if holds else (turn.verdict,), turn)
    return list(nearest.values())


def _verdict(claim: claims.Claim, evidence: claims.Evidence, found: claims.Found) -> str:
    """On one number alone."""
    return claims.judge(claim.model_copy(update={"evidence": (evidence,)}), [found])[0]


def _moved(found: claims.Found, change: Change, evidence: claims.Evidence) -> claims.Found:
    """The number with one limit, its value or its width just past a threshold, in the direction of the change."""
    past = PAST * max(1.0, abs(change.threshold))
    to = change.threshold + (past if change.direction == "above" else -past)
    if change.what == "value":
        return replace(found, value=to)
    lo, hi = found.lo, found.hi
    if change.what == "width":  # around the printed number, which stays inside
        centre = min(max(evidence.printed, lo), hi)
        scale = to / (hi - lo) if hi > lo else 1.0
        lo, hi = centre - scale * (centre - lo), centre + scale * (hi - centre)
    elif change.what == "lower limit":
        lo, hi = to, max(hi, to + past)
    else:
        lo, hi = min(lo, to - past), to
    return replace(found, value=min(max(found.value, lo), hi), lo=lo, hi=hi)


def _of_direction(found: claims.Found) -> list[Change]:
    """Both limits and 0: the one nearer to the other side decides whether the claim holds, the other one whether it fails."""
    if math.isnan(found.lo) or found.lo == found.hi:
        return []
    return [
        Change("lower limit", found.lo, 0.0, "below" if found.lo > 0 else "above", reached=found.lo > 0),
        Change("upper limit", found.hi, 0.0, "above" if found.hi < 0 else "below", reached=found.hi < 0),
    ]


def _of_number(claim: claims.Claim, evidence: claims.Evidence, found: claims.Found) -> list[Change]:
    """Whether a printed number is within the tolerance of the interval, whether the interval is narrow enough, and its side of 0."""
    single = math.isnan(found.lo)
    lo, hi = (found.value, found.value) if single else (found.lo, found.hi)
    lower, upper = ("value", "value") if single else ("lower limit", "upper limit")
    least, most = evidence.printed - claim.tolerance, evidence.printed + claim.tolerance
    tried = [
        Change(upper, hi, least, "above" if hi < least else "below", reached=hi < least),
        Change(lower, lo, most, "below" if lo > most else "above", reached=lo > most),
    ]
    if not single:
        wide = hi - lo > claim.widest
        tried.append(Change("width", hi - lo, claim.widest, "below" if wide else "above", reached=wide))
        if evidence.sign and not (
            least <= hi and lo <= most
        ):  # its side of 0 counts only for a number that is off
            tried += _of_direction(found)
    return tried


def rule(claim: claims.Claim, evidence: claims.Evidence) -> str:
    """The rule for one number, in a sentence or two."""
    side = {1: "above", -1: "below", 0: ""}[evidence.sign]
    other = {1: "below", -1: "above", 0: ""}[evidence.sign]
    if evidence.printed is None:
        return (
            f"Reproduced if the whole 95 % interval is {side} 0, not reproduced if the whole interval is {other} 0, "
            "inconclusive if the interval contains 0."
        )
    text = (
        f"Reproduced if the printed {short(evidence.printed)} is within {short(claim.tolerance)} of the 95 % interval and the interval is at most "
        f"{short(claim.widest)} wide. Inconclusive if the interval is wider, not reproduced if the printed number is farther away."
    )
    if side:
        text += f" If only the interval is {side} 0, the direction is reproduced."
    return text


def parts(claim: claims.Claim, found: Sequence[claims.Found]) -> list[Part]:
    """Every number of a claim, with its own verdict and what would change it."""
    return [_part(claim, evidence, item) for evidence, item in zip(claim.evidence, found, strict=True)]


def _part(claim: claims.Claim, evidence: claims.Evidence, found: claims.Found) -> Part:
    verdict, reason = claims.judge(claim.model_copy(update={"evidence": (evidence,)}), [found])
    there = not found.lacking and not math.isnan(found.value)
    return Part(
        about=_about(evidence),
        found=readable.plain(intervals.text(found.value, found.lo, found.hi, significant=3))
        if not found.lacking
        else readable.DASH,
        verdict=verdict,
        reason=reason,
        rule=rule(claim, evidence),
        changes=tuple(_sentences(claim, evidence, found, verdict)),
        bounds=_bounds(claim, evidence, found) if there else None,
    )


def _bounds(claim: claims.Claim, evidence: claims.Evidence, found: claims.Found) -> Bounds:
    lo, hi = (found.value, found.value) if math.isnan(found.lo) else (found.lo, found.hi)
    if evidence.printed is None:
        return Bounds(found.value, lo, hi, 0.0, 0.0)
    return Bounds(found.value, lo, hi, evidence.printed - claim.tolerance, evidence.printed + claim.tolerance)


def _about(evidence: claims.Evidence) -> str:
    """Which number it is: the values that choose its row, or the measure and its networks."""
    if evidence.measure:
        names = [readable.words(evidence.measure)]
        networks = [
            style.BACKBONE_NAMES.get(name, name) for name in (evidence.backbone, evidence.minus) if name
        ]
        return ", ".join([*names, " minus ".join(networks)] if networks else names)
    chosen = [readable.value(value, column) for column, value in evidence.where.items()]
    named = [] if evidence.column == "value" else [readable.words(evidence.column)]
    return ", ".join(chosen + named) or readable.words(evidence.table)


def _sentences(
    claim: claims.Claim, evidence: claims.Evidence, found: claims.Found, verdict: str
) -> list[str]:
    if found.lacking:
        return [f"A result without this gap is needed: {found.lacking}."]
    if math.isnan(found.value):
        return ["Photographs on which the number is defined are needed."]
    possible = sentences(turns(claim, evidence, found))
    if not possible:
        return [
            f"An interval is needed: more patients, or at least {claims.FEWEST_SEEDS} training seeds where patients give none."
        ]
    if not found.paper_setting and verdict == DIRECTION:
        possible.append(_in_the_papers_setting(claim))
    return possible


def _in_the_papers_setting(claim: claims.Claim) -> str:
    """What would make the same interval a reproduction."""
    if claim.own_data is None:
        return "The same interval counts as reproduced only on the paper's own photographs, which this study cannot have."
    photographs = f"the paper's own photographs ({claim.own_data.images:,} of {claim.own_data.source})"
    weights = ", with networks from ImageNet weights" if claim.setting == "pretrained" else ""
    return f"The same interval on {photographs}{weights}: {REPRODUCED}."


def change(claim: claims.Claim, found: Sequence[claims.Found]) -> list[str]:
    """What would change the verdict of a whole claim, in sentences: first what is lacking, or the numbers that decide.

    Args:
        claim: The claim.
        found: As :func:`drstudy.study.claims.look_up` gives it.
    """
    verdict, _ = claims.judge(claim, found)
    if verdict == NOT_TESTABLE:
        rules = dict.fromkeys(rule(claim, evidence) for evidence in claim.evidence)
        head = "The missing parts that the reason names are needed first."
        return (
            [f"{head} Then the rule decides.", *list(rules)[:1]]
            if rules
            else [f"{head} Then a rule can be written."]
        )
    whole = parts(claim, found)
    deciding = [part for part in whole if part.verdict == verdict]
    if len(whole) == 1:
        return list(whole[0].changes)
    many = len(deciding) > 1
    every = "Both" if len(whole) == 2 else f"All {len(whole)}"
    share = every if len(deciding) == len(whole) else f"{len(deciding)} of {len(whole)}"
    verb = "give" if many else "gives"
    head = f"{share} numbers {verb} this verdict, and the worst one counts."
    if verdict != REPRODUCED:
        head += f" {'Each of them' if many else 'It'} would have to change for a better verdict."
    return [head, *(f"{part.about}: {' '.join(part.changes)}" for part in deciding)]
