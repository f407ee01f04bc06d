"""Which eyes are looked at, in which order, and what is seen of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from drstudy.core.names import FIELD, GRADE_NAMES, LESIONS, NAMES, PROBABILITIES
from drstudy.evaluation import common
from drstudy.explain.measures import localisation, outlines, scores
from drstudy.explain.measures.grid import ANY
from drstudy.explain.measures.localisation import Masks
from drstudy.explain.methods import cam
from drstudy.papers.explorer.collection import Collection, Maps, Seen, lesion_mask

ANY_GRADE = -1

BY_NAME, BY_GRADING, BY_MAP = "name", "grading", "map"
"""Orders of eyes: by name; the worst graded first (:func:`error`); the worst map first (:attr:`Maps.found`)."""

REGIONS = {"heat": "energy on the lesion", "hit": "pointing game", "aupr": "average precision"}
"""Scores of a map, as :func:`drstudy.explain.measures.localisation.measure_eye` names them."""

CHANCE = {"heat": "area", "hit": "hit_chance", "aupr": "area"}
"""Score to the column of what a uniform map gets."""


@dataclass(frozen=True)
class View:
    """One eye through one system.

    Attributes:
        image_id: The eye.
        observed: Its grade as a sentence.
        image: (S, S, 3) uint8.
        masks: Its masks; empty if the data set has none.
        label: The system.
        answer: What the system says, as a sentence.
        probabilities: (5,), or None if the system gives none.
        grade, predicted: Observed and predicted grade; None if unknown.
        map_name: The map; empty if the system has none of this eye.
        heat: (S, S) float32 at least 0, or None.
        highest: Value of the hottest colour.
        cut: Value from which on a pixel belongs to a region; NaN without a map.
        cut_words: Where the cut comes from.
        regions: (S, S) bool, the map at the cut.
        status: Why there is no region, of :data:`drstudy.explain.measures.outlines.STATUS`.
        scores: ``score``, ``this eye`` and ``uniform map`` of the map; empty if the eye has no such lesion.
    """

    image_id: str
    observed: str
    image: np.ndarray
    masks: Masks
    label: str
    answer: str
    probabilities: np.ndarray | None
    grade: int | None
    predicted: int | None
    map_name: str
    heat: np.ndarray | None
    highest: float
    cut: float
    cut_words: str
    regions: np.ndarray
    status: str
    scores: pd.DataFrame


# --- which eyes -------------------------------------------------------------------------------------------


def right(seen: Seen) -> pd.Series:
    """Whether a system grades each test eye as observed, by image_id: True, False, or missing.

    A system that predicts no grade is right if its probability of referable DR is on the side of one half on which the observed grade is.
    """
    answers = seen.answers
    known = answers["grade"].notna()
    by_grade = answers["predicted"] == answers["grade"]
    by_side = (answers["probability"] >= 0.5) == (answers["grade"] >= common.CUT)
    found = by_grade.where(answers["predicted"].notna(), by_side)
    known &= answers["predicted"].notna() | answers["probability"].notna()
    return found.astype("boolean").mask(~known)


def error(seen: Seen) -> pd.Series:
    """How far off a system is, by image_id; NaN where the grade is unknown.

    Grades apart, and below 1 the distance of the probability of referable DR from what was observed. A system without a
    predicted grade has the second alone, and one that gives only a score its rank among the test eyes in place of the probability.
    """
    answers = seen.answers
    observed = (answers["grade"] >= common.CUT).astype(float)
    probability = answers["probability"].fillna(answers["score"].rank(pct=True))
    apart = (answers["predicted"] - answers["grade"]).abs().fillna(0)
    return (apart + 0.999 * (probability - observed).abs()).where(answers["grade"].notna())


def choose(
    collection: Collection,
    seen: Seen,
    grade: int = ANY_GRADE,
    outcome: str = "any",
    lesion: str = "",
    order: str = BY_NAME,
    map_name: str = "",
) -> list[str]:
    """The test eyes of a system that fit a choice.

    Args:
        collection: Eyes.
        seen: The system that is right or wrong.
        grade: Observed grade; -1 is any.
        outcome: ``any``, ``right`` or ``wrong``.
        lesion: Code of a lesion that the eye has; empty is any eye.
        order: :data:`BY_NAME`; :data:`BY_GRADING` leaves out eyes without a grade; :data:`BY_MAP` leaves out eyes without a map, or without the
            lesion that the map should find.
        map_name: Of the maps of the system, for :data:`BY_MAP`; empty is the first.

    Returns:
        Names in order; may be empty.

    Raises:
        ValueError: If there is no such order.
    """
    names = [name for name in collection.eyes.index if name in seen.answers.index]
    if grade != ANY_GRADE:
        names = [name for name in names if collection.eyes.loc[name, "grade"] == grade]
    if outcome != "any":
        wanted = right(seen)
        names = [name for name in names if wanted[name] is not pd.NA and wanted[name] == (outcome == "right")]
    if lesion:
        there = collection.lesions[lesion] > 0
        names = [name for name in names if there[name]]
    if order == BY_NAME:
        return sorted(names)
    badness = _badness(collection, seen, order, map_name)
    known = [name for name in names if not math.isnan(badness.get(name, math.nan))]
    return sorted(known, key=lambda name: (-badness[name], name))


def orders(collection: Collection, seen: Seen) -> list[str]:
    """The orders that there are: by map only if the system has maps and readers outlined lesions."""
    return [BY_NAME, BY_GRADING, *([BY_MAP] if collection.masked and seen.maps else [])]


def _badness(collection: Collection, seen: Seen, order: str, map_name: str) -> pd.Series:
    """By image_id, greater for an eye that comes earlier."""
    if order == BY_GRADING:
        return error(seen)
    if order != BY_MAP:
        raise ValueError(f"There is no order {order!r}; there are {BY_NAME}, {BY_GRADING}, {BY_MAP}.")
    if order not in orders(collection, seen):
        return pd.Series(dtype=float)
    return -maps_of(seen, map_name).found()


def maps_of(seen: Seen, map_name: str = "") -> Maps | None:
    """Maps of a system by name; empty is the first, None if it has none.

    Raises:
        KeyError: If it has no such map, with those that it has.
    """
    if map_name and map_name not in seen.maps:
        raise KeyError(f"{seen.label} has no map {map_name!r}; it has {', '.join(seen.maps) or 'none'}.")
    return seen.maps[map_name] if map_name else next(iter(seen.maps.values()), None)


def most_lesions(collection: Collection, names: list[str]) -> str:
    """The eye with the largest area of lesions; without masks the first one.

    Raises:
        ValueError: If there is no eye to choose from.
    """
    if not names:
        raise ValueError("No test eye fits this choice. Widen GRADE, OUTCOME or LESION.")
    area = collection.lesions.loc[names].sum(axis=1, min_count=1)
    return names[0] if area.isna().all() else str(area.idxmax())


def counts(collection: Collection) -> pd.DataFrame:
    """Test eyes by observed grade: how many there are, and how many have each lesion that any of them has."""
    grade = collection.eyes["grade"].map(
        lambda value: "unknown" if pd.isna(value) else GRADE_NAMES[int(value)]
    )
    there = collection.lesions > 0
    there = there.loc[:, there.any()]
    order = [name for name in (*GRADE_NAMES, "unknown") if (grade == name).any()]
    table = there.groupby(grade).sum().astype(int)
    table.insert(0, "eyes", grade.value_counts())
    return table.loc[order].rename_axis("observed grade")


# --- one eye ----------------------------------------------------------------------------------------------


def view(collection: Collection, image_id: str, seen: Seen, map_name: str = "", cut: float = 0.0) -> View:
    """One eye through one system.

    Args:
        collection: Eyes.
        image_id: A test eye that the system knows.
        seen: The system.
        map_name: Of its maps; empty is the first.
        cut: Share of the map's maximum at which it is outlined; 0 is the cut fixed on validation eyes, or half of the maximum if there is
            none.

    Raises:
        KeyError: If the system does not know the eye or the map, with what it knows.
    """
    if image_id not in seen.answers.index or image_id not in collection.eyes.index:
        raise KeyError(
            f"{seen.label} has no prediction for {image_id!r}; it has {len(seen.answers)} other test eyes."
        )
    maps = maps_of(seen, map_name)
    answer, masks = seen.answers.loc[image_id], collection.masks_of(image_id)
    grade, predicted = (
        None if pd.isna(answer[name]) else int(answer[name]) for name in ("grade", "predicted")
    )
    image = collection.image(image_id)
    return View(
        image_id=image_id,
        observed="grade unknown" if grade is None else f"observed {grade} ({GRADE_NAMES[grade]})",
        image=image,
        masks=masks if collection.masked else {},
        label=seen.label,
        answer=_sentence(answer),
        probabilities=answer[PROBABILITIES].to_numpy(float) if PROBABILITIES[0] in seen.answers else None,
        grade=grade,
        predicted=predicted,
        **_mapped(maps, image_id, masks, len(image), cut),
    )


def _mapped(maps: Maps | None, image_id: str, masks: Masks, size: int, share: float) -> dict[str, Any]:
    """What a view has of a map; without one of this eye, nothing."""
    raw = None if maps is None else maps.of(image_id)
    if maps is None or raw is None:
        nothing = {"map_name": "", "heat": None, "highest": 0.0, "cut": math.nan, "cut_words": "no map"}
        return nothing | {"regions": np.zeros((size, size), bool), "status": "", "scores": _no_scores()}
    value, words = _cut(maps, raw, share)
    fov = np.asarray(masks[FIELD], bool)
    found = outlines.regions(raw[None], [1.0], [0.0], fov, [value], smallest=0, by_value=True)
    heat = cam.upsample(raw[None], size)[0]
    return {
        "map_name": maps.name,
        "heat": heat,
        "highest": maps.highest,
        "cut": value,
        "cut_words": words,
        "regions": found.masks[0],
        "status": found.status[0],
        "scores": score(heat, found.masks[0], masks, maps.region),
    }


def _sentence(answer: pd.Series) -> str:
    """The prediction of a system for an eye, in words."""
    parts = []
    if not pd.isna(answer["predicted"]):
        grade = int(answer["predicted"])
        parts.append(f"predicted {grade} ({GRADE_NAMES[grade]})")
    if not pd.isna(answer["probability"]):
        parts.append(f"referable {100 * answer['probability']:.0f} %")
    return ", ".join(parts) or f"score {answer['score']:.2f}"


def _cut(maps: Maps, raw: np.ndarray, share: float) -> tuple[float, str]:
    """The value at which a map is cut, and where it comes from."""
    if share > 0:
        return float(share * raw.max()), f"{share:.0%} of this map's maximum"
    fixed = maps.cut()
    if math.isnan(fixed):
        return float(
            scores.FIXED * raw.max()
        ), f"{scores.FIXED:.0%} of this map's maximum (none is fixed on validation)"
    return fixed, "fixed on validation eyes"


def score(heat: np.ndarray, regions: np.ndarray, masks: Masks, region: str) -> pd.DataFrame:
    """Scores of one map of one eye.

    Args:
        heat: (S, S), at least 0.
        regions: (S, S) bool, the map at a cut.
        masks: Masks of the eye.
        region: What the map should find.

    Returns:
        ``score``, ``this eye`` and ``uniform map``, the last NaN where it says nothing; no row if the eye has no such lesion or the lesion is
        not annotated.
    """
    named, fov = lesion_mask(masks, region), np.asarray(masks[FIELD], bool)
    if named is None:
        return _no_scores()
    codes = LESIONS if region == ANY else (region,)
    table, _ = localisation.measure_eye(
        heat[None], {code: masks.get(code) for code in (*codes, "DISC", FIELD)}
    )
    row = table[(table["kind"] == "mask") & (table["region"] == region)].iloc[0]
    rows = [(text, row[name], row[CHANCE[name]]) for name, text in REGIONS.items()]
    cover = np.where(fov, named, 0)
    total = cover.sum(dtype=np.float64)
    dice = 2 * cover[regions].sum(dtype=np.float64) / (regions.sum() + total)
    rows.append(("Dice at the cut", dice, 2 * total / (fov.sum() + total)))
    return pd.DataFrame(rows, columns=["score", "this eye", "uniform map"])


def worst_maps(seen: Seen, names: list[str], map_name: str = "") -> pd.DataFrame:
    """By what maps are ordered.

    Args:
        seen: The system.
        names: Eyes in order; none if the system has no maps.
        map_name: Of its maps; empty is the first.

    Returns:
        One row per eye: ``image_id`` and ``times a uniform map``, the average precision over that of a uniform map.
    """
    maps = maps_of(seen, map_name)
    found = pd.Series(dtype=float) if maps is None or not names else maps.found().reindex(names)
    return found.rename("times a uniform map").rename_axis("image_id").reset_index()


def notes(localised: pd.DataFrame) -> dict[str, str]:
    """By image_id, the result of :func:`worst_maps` in words, for a figure."""
    return {name: f"{times:.2f} times a uniform map" for name, times in localised.itertuples(index=False)}


def _no_scores() -> pd.DataFrame:
    return pd.DataFrame(columns=["score", "this eye", "uniform map"])


def truth(collection: Collection, image_id: str) -> pd.DataFrame:
    """The lesions that readers outlined in an eye: ``lesion`` and its share of the field of view in %; empty if there are none."""
    field = float(np.sum(collection.masks_of(image_id)[FIELD]))
    found = collection.lesions.loc[image_id]
    rows = [(NAMES[code], 100 * pixels / field) for code, pixels in found.items() if pixels > 0]
    return pd.DataFrame(rows, columns=["lesion", "% of the field of view"])
