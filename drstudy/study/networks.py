"""A trained network of a finished result, with all that is needed to explain a photograph from outside the study."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drstudy.core import devices, paths, records
from drstudy.papers import registry

if TYPE_CHECKING:
    import pandas as pd

    from drstudy.core.devices import Compute
    from drstudy.core.records import Record
    from drstudy.explain.one import Explainer
    from drstudy.papers.explainable import Explainable

MEASURES = ("brightness", "contrast", "dark_share", "white_share", "sharpness")
"""Measures of quality in which a photograph is compared with those that the network learnt."""


class ModelError(ValueError):
    """The folder that was given has no network that can be explained."""


@dataclass(frozen=True)
class Network:
    """A trained network, and the photographs that it learnt.

    Attributes:
        record: Its result.
        explainer: The network, with what was fixed on validation eyes.
        compute: Device and precision.
        sha256: Of its file.
        image_size: Side of the crops that it learnt, pixels.
        max_megapixels: Largest file that its audit accepted.
        source: ``SOURCE`` of its photographs.
        seen: Measures of the photographs that it learnt, one row each.
    """

    record: Record
    explainer: Explainer
    compute: Compute
    sha256: str
    image_size: int
    max_megapixels: float
    source: str
    seen: pd.DataFrame

    @property
    def synthetic(self) -> bool:
        """Whether it learnt synthetic photographs only."""
        return self.source == "phantom"


def existing() -> list[str]:
    """Result folders with networks that can be explained, of all profiles, as ``--model`` takes them."""
    found = {
        file.parent
        for one in registry.explainable()
        for below in ("", "*/")
        for file in paths.results().glob(f"*/{one.notebook}/{below}{one.files}")
    }
    return [paths.show(folder) for folder in sorted(found) if (folder / "run.json").is_file()]


def how() -> str:
    """A sentence with the networks that exist, or how to make one."""
    if found := existing():
        return "Give --model one of: " + ", ".join(found) + "."
    return "There is no trained network yet. `drstudy reproduce --profile demo --until 03` trains some on synthetic eyes."


def load(folder: str | os.PathLike[str], device: str = "auto", threads: int = 0) -> Network:
    """Open the network of a finished training.

    Args:
        folder: Result folder ``results/<profile>/<notebook>[/<variant>]``, or one of its files of weights. Of a folder with several networks
            the paper chooses one.
        device, threads: As of :func:`drstudy.core.devices.setup`.

    Raises:
        ModelError: If there is no such folder, another kind of stage made it, or the network has no map; with the networks that exist.
        drstudy.core.records.RecordError: If the result, or the audit of its photographs, is unfinished or damaged.
    """
    record, file, kind = _find(folder)
    from drstudy.explain.one import UnexplainableError

    audit = records.load(record.params["AUDIT"])
    compute = devices.setup(device, "fp32", threads)
    try:
        explainer = kind.opener()(record, file, compute)
    except UnexplainableError as error:
        raise ModelError(f"--model {os.fspath(folder)}: {error}") from None
    return Network(
        record=record,
        explainer=explainer,
        compute=compute,
        sha256=paths.sha256(explainer.file),
        image_size=audit.params["IMAGE_SIZE"],
        max_megapixels=audit.params["MAX_MEGAPIXELS"],
        source=audit.params["SOURCE"],
        seen=_seen(audit),
    )


def _find(folder: str | os.PathLike[str]) -> tuple[Record, str, Explainable]:
    """The finished record of a training, the name of the file (empty if the folder was given), and what opens it."""
    place, file = paths.resolve(folder), ""
    if place.suffix == ".safetensors":
        place, file = place.parent, place.name
    if not place.is_dir():
        raise ModelError(f"--model {os.fspath(folder)}: there is no such folder. {how()}")
    if not (place / "run.json").is_file():
        what = "is not a finished result: it has no run.json"
        raise ModelError(f"--model {os.fspath(folder)}: this {what}. {how()}")
    record = records.load(place)
    kinds = {one.notebook: one for one in registry.explainable()}
    notebook = record.data["notebook"]
    if notebook not in kinds:
        raise ModelError(
            f"--model {os.fspath(folder)}: this is a result of {notebook}. Only networks made by {' or '.join(kinds)} "
            f"can be explained. {how()}"
        )
    if file and not Path(place, file).is_file():
        raise ModelError(f"--model {os.fspath(folder)}: there is no such file. {how()}")
    return record, file, kinds[notebook]


def _seen(audit: Record) -> pd.DataFrame:
    """Measures of the training photographs."""
    table = paths.read_csv(audit.path("audit.csv"), text=("image_id",))
    split = paths.read_csv(audit.path("split.csv"), text=("image_id", "patient_id", "split"))
    learnt = split.loc[split["split"] == "train", "image_id"]
    return table.loc[table["image_id"].isin(learnt), list(MEASURES)].reset_index(drop=True)
