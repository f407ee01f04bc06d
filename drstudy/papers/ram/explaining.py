"""A network of notebook 11, opened for ``drstudy explain``: the regressed grade, the grade that it implies, and the map of the score.

The map is the one of :mod:`drstudy.papers.ram.maps`: signed, in grades, and its mean plus the bias is the score. What is above 0 speaks for a
higher grade. Probabilities are not given, since a regression has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from drstudy.core import paths
from drstudy.evaluation import ordinal
from drstudy.explain import one
from drstudy.models import nets
from drstudy.papers.ram import maps, model, system, tables
from drstudy.papers.ram.layers import NETWORKS
from drstudy.training import prediction

if TYPE_CHECKING:
    from typing import Any

    from drstudy.core.devices import Compute
    from drstudy.core.records import Record
    from drstudy.models.nets import GradingNet

NAME = re.compile(r"(?P<network>.+)-(?P<size>\d+)\.safetensors")
"""Name of a file of weights, as :func:`drstudy.papers.ram.training.save` writes it."""

NO_CUTS = "rounded to the nearest grade, since no validation eye has a grade"


@dataclass(frozen=True)
class Saved:
    """A network of a finished result: its name, the side of its photographs in pixels, and its file."""

    network: str
    size: int
    file: str

    @property
    def mapped(self) -> bool:
        """Whether it has a map of its score; no map sees through the dense head of a baseline."""
        return not self.network.startswith("baseline")


def saved(record: Record) -> list[Saved]:
    """The networks of a result, in the order in which its notebook trains them."""
    order = [*record.params["NETWORKS"], record.params["BACKBONE"]]
    found = [NAME.fullmatch(name) for name in record.data["outputs"]]
    networks = [Saved(match["network"], int(match["size"]), match.string) for match in found if match]
    return sorted(networks, key=lambda one: (order.index(one.network), one.size))


def open_network(record: Record, file: str, compute: Compute) -> one.Explainer:
    """A network of a finished result of notebook 11.

    Args:
        record: The result.
        file: Name of its file, such as ``ram_net5-256.safetensors``; empty for the network that the comparison of all systems takes
            (:func:`drstudy.papers.ram.system.chosen`).
        compute: Device and precision.

    Returns:
        The network with the cuts between grades that were fitted on its validation scores. The cut of the map exists for the network of the
        comparison, whose maps of validation eyes are kept.

    Raises:
        drstudy.explain.one.UnexplainableError: If the network has no map of its score.
        drstudy.core.records.RecordError: If a file is missing or damaged.
    """
    everything, compared = saved(record), _compared(record)
    which = next((one for one in everything if one.file == file), None) if file else compared
    if which is None or not which.mapped:
        files = ", ".join(one.file for one in everything if one.mapped) or "none"
        why = "has a dense head, and so no map of its score" if which else "is no network of this result"
        raise one.UnexplainableError(
            f"{file or paths.show(record.folder)} {why}. Networks with a map: {files}."
        )
    path = record.path(which.file)
    rebuild = model.rebuild if which.network in NETWORKS else nets.rebuild
    net = prediction.load(path, rebuild).to(compute.device)
    cuts, note = _cuts(record, which)
    cut, highest, cut_note = (
        one.map_scale(record)
        if which == compared
        else (None, None, f"no outlines: maps of validation eyes are kept of {compared.file} only")
    )
    tta = bool(record.params["TTA"])
    names = tables.names(record.params["NETWORKS"], record.params["BACKBONE"], record.metrics["weights_used"])
    return one.Explainer(
        file=path,
        label=f"{names[which.network]}, {which.size} px",
        input_size=which.size,
        answer=lambda image: explain(net, image, compute, cuts, cut, tta),
        note=note,
        map_unit="grades per position" + (", mean over the four flips of the photograph" if tta else ""),
        map_cut=cut,
        map_cut_note=cut_note,
        highest=highest,
        cuts=cuts,
        agreement=_agreement(record, which),
    )


def _compared(record: Record) -> Saved | None:
    """The network whose maps of validation eyes are kept; None if no network of the result has a map."""
    mapped = [one for one in saved(record) if one.mapped]
    return system.chosen(mapped, record.params["BACKBONE"]) if mapped else None


def _cuts(record: Record, which: Saved) -> tuple[tuple[float, ...], str]:
    """Cuts between the grades, fitted on the network's validation scores as the comparison does, and how they were found."""
    table = paths.read_csv(
        record.path("predictions.csv"), text=("network", "image_id", "patient_id", "split")
    )
    own = table[(table["network"] == which.network) & (table["size"] == which.size)]
    known = own[(own["split"] == "validation") & own["grade"].notna()]
    if known.empty:
        return ordinal.ROUNDED, NO_CUTS
    cuts = ordinal.fit_cuts(known["score"].to_numpy(float), known["grade"].to_numpy(int))
    return tuple(
        cuts.tolist()
    ), f"cuts between the grades fitted on {len(known)} validation eyes of this study"


def _agreement(record: Record, which: Saved) -> dict[str, Any]:
    """Kappa of the network on test eyes, with its interval, as the notebook recorded it."""
    name = f"qwk_{which.network}_{which.size}"
    return {f"qwk{end}": record.metrics.get(f"{name}{end}") for end in ("", "_lo", "_hi")}


def explain(
    net: GradingNet,
    image: np.ndarray,
    compute: Compute,
    cuts: tuple[float, ...] = ordinal.ROUNDED,
    cut: float | None = None,
    tta: bool = False,
) -> one.Explained:
    """Score, implied grade, map and outlines of one photograph.

    Args:
        net: A network with a map of its score (:func:`drstudy.papers.ram.maps.ram`), with ``input_size``, on the device of ``compute``.
        image: (S, S, 3) uint8 RGB, the crop of the field of view.
        compute: Device and precision.
        cuts: Four rising cuts between the grades.
        cut: Value of the map, in grades, from which on a position belongs to a region; None outlines nothing.
        tta: Whether the map is the mean over the four flips. The score is always that of the photograph as it is, as in
            ``predictions.csv``.

    Raises:
        drstudy.papers.ram.maps.NotLinearError: If the score is not the mean of a map.
    """
    single = maps.explain(net, image[None], ["photograph"], np.array([0]), compute)
    found = maps.explain(net, image[None], ["photograph"], np.array([0]), compute, tta) if tta else single
    score = float(single.scores[0])
    predicted = int(ordinal.grades(np.array([score]), cuts)[0])
    heat = np.maximum(found.placed(0, len(image)), 0)
    traced, status = ((), "") if cut is None else one.outlined(heat[None], image, predicted > 0, cut)
    return one.Explained(
        predicted=predicted,
        layer=list(net.cam_layers)[-1],
        raw=found.raw[0],
        heat=heat,
        outlines=traced,
        status=status,
        score=score,
    )
