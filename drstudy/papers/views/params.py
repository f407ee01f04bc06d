"""Parameters of notebook 21: how many augmented views of each photograph are enough."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from drstudy.core.params import Positive
from drstudy.training.recipe import Training


class ViewsStudy(Training):
    """Notebook 21: how many augmented views are enough.

    Attributes:
        views_compared: Those compared; they take the place of ``views``. 0 is a fresh view at every draw, and must be among them.
        repeats: Networks trained with each, with seeds one apart; their scores are averaged.
        feature_store: Always; fresh views do without.
        resamples: Of the patient bootstrap.
    """

    notebook: ClassVar[str] = "21_views"
    feature_store: Literal[True] = True
    select_by: Literal["qwk", "loss", "last"] = "last"
    TRAINS: ClassVar[bool] = True
    SHOWS: ClassVar[frozenset[str]] = frozenset({"resamples"})
    UNTRAINED: ClassVar[frozenset[str]] = frozenset({"views_compared", "repeats"})
    views_compared: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = (1, 2, 0)
    repeats: Positive = 2
    resamples: Positive = 200

    @field_validator("views_compared")
    @classmethod
    def _rise_and_end_fresh(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        fixed = value[:-1]
        if not fixed or value[-1] != 0 or 0 in fixed or list(fixed) != sorted(set(fixed)):
            raise ValueError("numbers of views must rise, and end with 0 for fresh ones, as in (1, 2, 4, 0)")
        return value
