"""Parameters of notebook 23: one eye at a time."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from drstudy.core.params import Parameters, Positive, each_once

Code = Literal["", "MA", "HE", "EX", "SE", "VB", "IRMA", "NV", "PRH"]


class Explorer(Parameters):
    """Notebook 23. What it shows without menus; the menus start from there.

    Attributes:
        audit: Result folder of notebook 01: photographs and lesion masks.
        results: Result folders whose systems can be looked at.
        grade: Eyes of this observed grade; -1 is any.
        outcome: Eyes that the first system grades rightly or wrongly, or any.
        lesion: Code of a lesion that the eyes have; empty is any eye.
        eye: image_id of the eye that is shown; empty is the one with the largest area of lesions among those that fit.
        system, other: Places in the table of systems: the one that is shown, and the one beside it.
        map_name, other_map: Names of their maps; empty is the first of each.
        cut: Share of a map's maximum at which it is outlined; 0 is the cut that was fixed on validation eyes, and half of the maximum
            where there is none.
        worst: Number of eyes among the worst graded that are drawn.
        widgets: ``auto`` shows menus where there is a front end, ``on`` always, ``off`` never.
    """

    notebook: ClassVar[str] = "23_explorer"
    audit: str = "results/smoke/01_data_audit"
    results: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "results/smoke/05_heatmap_analysis/densenet121-seed0",
        "results/smoke/11_ram",
    )
    grade: Annotated[int, Field(ge=-1, le=4)] = -1
    outcome: Literal["any", "right", "wrong"] = "any"
    lesion: Code = ""
    eye: str = ""
    system: Annotated[int, Field(ge=0)] = 0
    other: Annotated[int, Field(ge=0)] = 1
    map_name: str = ""
    other_map: str = ""
    cut: Annotated[float, Field(ge=0, lt=1)] = 0.0
    worst: Positive = 4
    widgets: Literal["auto", "on", "off"] = "auto"
    _results_once = field_validator("results")(each_once)
