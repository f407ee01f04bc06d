"""What will be photographed: the configuration of a phantom study and its list of eyes."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from .camera import CAMERAS

DISTRIBUTIONS: dict[str, tuple[float, ...]] = {
    "eyepacs": (25810, 2443, 5292, 873, 708),
    "mild": (0.40, 0.15, 0.22, 0.13, 0.10),
}
"""Shares of the grades 0 to 4: the training set of the Kaggle competition (EyePACS), and a less skewed
default."""

FELLOW_EYE_CORRELATION = 0.95
"""Correlation of the latent severity of the two eyes of a patient (both normal, mean 0, variance 1)."""

SIZE_RANGE = (64, 2048)
EYES = ("left", "right")
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_NORMAL = NormalDist()

# one random stream a purpose, so that no draw depends on how much another part has drawn
(
    STREAM_PLAN,
    STREAM_LOOK,
    STREAM_ANATOMY,
    STREAM_LESIONS,
    STREAM_TEXTURE,
    STREAM_CAPTURE,
    STREAM_NOISE,
    STREAM_DUST,
    STREAM_AMD,
) = range(9)

DISEASES = ("DR only", "AMD only", "DR + AMD", "neither")
"""What the four shares of ``PhantomConfig.amd`` are of, in their order."""

SAME_DISEASES = 0.85
"""Share of eyes that have the diseases drawn for their patient; the other eyes draw their own (a choice of this study)."""

FELLOW_AMD_CORRELATION = 0.8
"""Correlation of the latent severity of AMD in the two eyes of a patient (a choice of this study)."""

_ROOT_TWO, _ROOT_THREE = math.sqrt(2.0) % 1.0, math.sqrt(3.0) % 1.0


@dataclass(frozen=True)
class PhantomConfig:
    """What to generate. Equal configurations give equal bytes.

    Attributes:
        n_patients: number of patients (>= 1); each has a left and a right eye. A smaller study is the
            beginning of a larger one with the same seed.
        size: width and height of an image in pixels, 64 to 2048. The same eye at another size is the same
            eye.
        seed: any integer from 0 to 2**63 - 1.
        distribution: a name in ``DISTRIBUTIONS``, or five numbers >= 0, not all 0: the shares of grades 0 to
            4.
        difficulty: 0 (plain lesions, clean photographs) to 1 (faint lesions, many look-alikes, poor
            photographs).
        label_noise: share of eyes, 0 to 1, whose recorded label moves to a neighbouring grade.
        ungradable: share of eyes, 0 to 1, whose photograph is too poor to grade; their grade still follows
            from the lesions that are there.
        laser: share of eyes with grade 4 that carry laser scars, 0 to 1; eyes with lower grades carry them
            more rarely (grade 3 a third, grade 2 an eighth, grades 0 and 1 a twenty-fifth as often), so that
            scars do not decide the grade.
        amd: None (no AMD, and nothing is recorded of it), or four shares of the eyes, not all 0: those with DR only, AMD
            only, both, neither (:data:`DISEASES`). ``distribution`` then gives the grades 1 to 4 of the eyes with DR.
        amd_grades: three numbers >= 0, not all 0: the shares of the grades 1 to 3 among eyes with AMD.
        amd_atrophy: share of eyes, 0 to 1, with geographic atrophy among those whose grade of AMD is at least 2.

    Raises:
        ValueError: a value outside its range; the message names the field, the range and what to do.
        TypeError: a value of the wrong type.
    """

    n_patients: int = 100
    size: int = 384
    seed: int = 0
    distribution: str | tuple[float, ...] = "mild"
    difficulty: float = 0.5
    label_noise: float = 0.0
    ungradable: float = 0.03
    laser: float = 0.45
    amd: tuple[float, float, float, float] | None = None
    amd_grades: tuple[float, float, float] = (1.0, 1.0, 1.0)
    amd_atrophy: float = 0.15

    def __post_init__(self) -> None:
        for name, low, high in (("n_patients", 1, 10**7), ("size", *SIZE_RANGE), ("seed", 0, 2**63 - 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral):
                raise TypeError(f"{name} must be an integer from {low} to {high}, got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
            object.__setattr__(self, name, int(value))
        for name in ("difficulty", "label_noise", "ungradable", "laser", "amd_atrophy"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"{name} must be a number from 0 to 1, got {value!r}")
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is a share from 0 to 1, got {value}; write 0.03 for 3 %")
            object.__setattr__(self, name, float(value))
        self._check_distribution()
        self._check_amd()

    def _check_distribution(self) -> None:
        if isinstance(self.distribution, str):
            if self.distribution not in DISTRIBUTIONS:
                near = get_close_matches(self.distribution, DISTRIBUTIONS, 1)
                raise ValueError(
                    f"distribution {self.distribution!r} is unknown: use one of {', '.join(DISTRIBUTIONS)}"
                    + (f" (did you mean {near[0]!r}?)" if near else "")
                    + ", or five numbers >= 0, the shares of grades 0 to 4"
                )
            return
        try:
            shares = tuple(float(value) for value in self.distribution)
        except (TypeError, ValueError):
            raise TypeError(
                f"distribution must be a name ({', '.join(DISTRIBUTIONS)}) or five numbers, "
                f"got {self.distribution!r}"
            ) from None
        if len(shares) != 5 or not all(math.isfinite(s) and s >= 0 for s in shares) or sum(shares) <= 0:
            raise ValueError(
                f"distribution must be five finite numbers >= 0, not all 0 (shares of grades 0 to 4), "
                f"got {shares}"
            )
        object.__setattr__(self, "distribution", shares)

    def _check_amd(self) -> None:
        if self.amd is None:
            if (self.amd_grades, self.amd_atrophy) != ((1.0, 1.0, 1.0), 0.15):
                raise ValueError(
                    "amd_grades and amd_atrophy say something only where amd gives shares of eyes"
                )
            return
        object.__setattr__(
            self, "amd", _shares("amd", self.amd, f"shares of eyes ({', '.join(DISEASES)})", 4)
        )
        object.__setattr__(
            self, "amd_grades", _shares("amd_grades", self.amd_grades, "shares of grades 1 to 3 of AMD", 3)
        )
        if self.amd[0] + self.amd[2] > 0 and sum(self.shares[1:]) == 0:
            raise ValueError("amd asks for eyes with DR, but distribution has no grade above 0")

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of grades 0 to 4; they sum to 1."""
        raw = DISTRIBUTIONS[self.distribution] if isinstance(self.distribution, str) else self.distribution
        return tuple(value / sum(raw) for value in raw)

    @property
    def hardness(self) -> float:
        """``difficulty`` on a scale where contrasts and disturbances are linear: 0 at 0, 0.3 at 0.5, 1 at 1.

        The bend puts the default where fine-tuning the last blocks of EfficientNet-Lite0 (ImageNet weights,
        490 eyes, 224 pixels) reaches a quadratic weighted kappa of about 0.8 on other patients.
        """
        return self.difficulty * (0.2 + 0.8 * self.difficulty)

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as plain JSON values."""
        out = asdict(self)
        out["distribution"] = (
            self.distribution if isinstance(self.distribution, str) else list(self.distribution)
        )
        for name in ("amd", "amd_grades", "amd_atrophy"):
            if self.amd is None:
                del out[name]  # a phantom without AMD is the one that it was before there was any
            elif name != "amd_atrophy":
                out[name] = list(out[name])
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PhantomConfig:
        """Builds a configuration from ``to_dict``'s values.

        Raises:
            ValueError: an unknown name; the message gives the nearest known one.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"PhantomConfig has no {name!r}{hint} Known: {', '.join(known)}")
        return cls(**dict(values))


def _shares(name: str, value: Any, what: str, count: int) -> tuple[float, ...]:
    """Shares as floats, as they were given.

    Raises:
        TypeError, ValueError: they are not ``count`` finite numbers >= 0, or all 0.
    """
    try:
        shares = tuple(float(one) for one in value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {count} numbers, the {what}, got {value!r}") from None
    if len(shares) != count or not all(math.isfinite(one) and one >= 0 for one in shares) or sum(shares) <= 0:
        raise ValueError(f"{name} must be {count} finite numbers >= 0, not all 0 (the {what}), got {shares}")
    return shares


def _pick(shares: tuple[float, ...], place: float) -> int:
    """The number of the share in which a place, 0 to 1, lies; never one of 0."""
    bounds = np.cumsum(shares) / sum(shares)
    found = min(int(np.searchsorted(bounds, place, side="right")), len(shares) - 1)
    while shares[found] == 0.0:
        found = found - 1 if found and sum(shares[:found]) > 0 else found + 1
    return found


def _diseases(config: PhantomConfig, patient: int) -> list[tuple[bool, int, bool]]:
    """For each eye of a patient: whether it has DR, its grade of AMD, and whether with geographic atrophy.

    What a patient has runs through an equidistributed sequence, as the severity of DR does, so that small studies get their share of
    everything. All draws come from the stream of AMD.
    """
    starts = stream(config, STREAM_AMD).random(2)
    rng = stream(config, STREAM_AMD, patient)
    whose = (float(starts[0]) + patient * _ROOT_TWO) % 1.0
    latent = _normal((float(starts[1]) + patient * _ROOT_THREE) % 1.0)
    found = []
    for _ in EYES:
        draw = rng.random(4)
        disease = _pick(config.amd, whose if draw[0] < SAME_DISEASES else float(draw[1]))
        severity = _NORMAL.cdf(
            math.sqrt(FELLOW_AMD_CORRELATION) * latent
            + math.sqrt(1.0 - FELLOW_AMD_CORRELATION) * _normal(float(draw[2]))
        )
        grade = 1 + _pick(config.amd_grades, severity) if disease in (1, 2) else 0
        found.append((disease in (0, 2), grade, grade >= 2 and bool(draw[3] < config.amd_atrophy)))
    return found


def _normal(place: float) -> float:
    return _NORMAL.inv_cdf(min(max(place, 1e-9), 1.0 - 1e-9))


def stream(config: PhantomConfig, *key: int) -> np.random.Generator:
    """Returns the random generator of one purpose (``STREAM_...``) and one patient, eye or camera."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=key)))


def n_eyes(config: PhantomConfig) -> int:
    """Returns the number of eyes, twice the number of patients."""
    return 2 * config.n_patients


def image_id_of(index: int) -> str:
    """Returns the name of eye number ``index``: ``p0000_left``, ``p0000_right``, ``p0001_left``, ..."""
    return f"p{index // 2:04d}_{EYES[index % 2]}"


def index_of(config: PhantomConfig, image: int | str) -> int:
    """Returns the number of an eye given its number or its name.

    Raises:
        KeyError: there is no such eye in this configuration.
    """
    if isinstance(image, str):
        patient, _, eye = image.rpartition("_")
        if patient[:1] == "p" and patient[1:].isdigit() and eye in EYES:
            index = 2 * int(patient[1:]) + EYES.index(eye)
            if image_id_of(index) == image and index < n_eyes(config):
                return index
    elif 0 <= operator.index(image) < n_eyes(config):
        return operator.index(image)
    raise KeyError(
        f"no eye {image!r}: this configuration has {config.n_patients} patients, so use 0 to "
        f"{n_eyes(config) - 1} or {image_id_of(0)} to {image_id_of(n_eyes(config) - 1)}"
    )


def plan_patient(config: PhantomConfig, patient: int) -> list[dict[str, Any]]:
    """Returns the plan of the two eyes of one patient (see ``plan``), independent of every other patient."""
    rng = stream(config, STREAM_PLAN, patient)
    # the patient's severity runs through an equidistributed sequence: small studies get their share of every
    # grade
    start = float(stream(config, STREAM_PLAN).random())
    place = (start + patient * _GOLDEN) % 1.0
    latent = _NORMAL.inv_cdf(min(max(place, 1e-9), 1.0 - 1e-9))
    bounds = np.cumsum(config.shares)
    camera = int(rng.choice(len(CAMERAS), p=[one.share for one in CAMERAS]))
    diseases = None if config.amd is None else _diseases(config, patient)
    rows = []
    for side, eye in enumerate(EYES):
        draw = rng.random(6)
        own = _NORMAL.inv_cdf(min(max(draw[0], 1e-9), 1.0 - 1e-9))
        severity = _NORMAL.cdf(
            math.sqrt(FELLOW_EYE_CORRELATION) * latent + math.sqrt(1.0 - FELLOW_EYE_CORRELATION) * own
        )
        grade = min(int(np.searchsorted(bounds, severity, side="right")), 4)
        while config.shares[grade] == 0.0:  # severity 1.0 to rounding, or a share of 0
            grade = grade - 1 if grade and sum(config.shares[:grade]) > 0 else grade + 1
        if diseases:  # what the eye has decides whether there is DR, the severity only which grade
            grade = 1 + _pick(config.shares[1:], severity) if diseases[side][0] else 0
        label = grade
        if draw[1] < config.label_noise:
            label = grade + (1 if grade == 0 or (grade < 4 and draw[2] < 0.5) else -1)
        treated = draw[4] < config.laser * (0.04, 0.04, 0.12, 0.33, 1.0)[grade]
        rows.append(
            {
                "image_id": image_id_of(2 * patient + side),
                "patient_id": f"p{patient:04d}",
                "eye": eye,
                "grade": grade,
                "label": label,
                "gradable": bool(draw[3] >= config.ungradable),
                "camera": CAMERAS[camera].name,
                "treated": bool(treated),
            }
        )
        if diseases:
            rows[-1] |= {"amd_grade": diseases[side][1], "atrophy": diseases[side][2]}
    return rows


def plan(config: PhantomConfig) -> pd.DataFrame:
    """Returns the list of eyes without rendering any.

    Returns:
        One row per eye, in the order of ``render``'s index, with the columns ``image_id`` (``p0001_left``),
        ``patient_id``, ``eye`` (``left`` or ``right``), ``grade`` (true, int), ``label`` (recorded: the
        grade, or its neighbour under label noise), ``gradable`` (bool), ``camera`` (name) and ``treated``
        (bool: laser scars). With AMD also ``amd_grade`` (int, 0 to 3; label noise leaves it as it is) and ``atrophy``
        (bool: geographic atrophy).
    """
    return pd.DataFrame(
        [row for patient in range(config.n_patients) for row in plan_patient(config, patient)]
    )
