"""Parameters of notebook 20: all systems side by side."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from drstudy.core.params import Parameters, Positive, each_once

Code = Literal["MA", "HE", "EX", "SE", "VB", "IRMA", "NV", "PRH"]


class SideBySide(Parameters):
    """Notebook 20.

    Attributes:
        audit: Result folder of notebook 01 with the lesion masks; the photographs may be larger than those that a network was trained on.
        reference: Result folder of the network with which all systems are compared. It started from pretrained weights.
        results: Result folders of all notebooks whose systems are compared, or whose tables the claims ledger reads. Empty: all finished
            results of the profile.
        declared: Digest of what the papers declare of their systems and claims; another digest makes the notebook run again.
        codes: Lesions on whose masks maps are measured, beside all lesions together.
        grid: Cells per side on which maps are measured, at least as many as the finest map has.
        specificity: Wanted specificity on validation eyes, which fixes the cut for referable DR.
        resamples: Number of resamples of the bootstrap over patients.
    """

    notebook: ClassVar[str] = "20_side_by_side"
    audit: str = "results/smoke/01_data_audit"
    reference: str = "results/smoke/03_fine_tuning/efficientnet_lite0-seed0"
    results: tuple[str, ...] = ()
    declared: str = ""
    codes: Annotated[tuple[Code, ...], Field(min_length=1)] = ("MA", "HE", "EX", "SE", "NV")
    grid: Annotated[int, Field(ge=8, le=1024)] = 32
    specificity: Annotated[float, Field(gt=0, lt=1)] = 0.9
    resamples: Positive = 200

    @field_validator("results", "codes")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return each_once(value)
