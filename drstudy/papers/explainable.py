"""What a paper declares of its networks that explain photographs from outside the study (``drstudy explain``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.core.records import Record
    from drstudy.explain.one import Explainer


@dataclass(frozen=True, kw_only=True)
class Explainable:
    """Trained networks of a notebook that ``drstudy explain`` takes. The parameter ``AUDIT`` of that notebook names their photographs.

    Attributes:
        notebook: The notebook whose results have the networks.
        files: Pattern of the names of their files in a result folder, such as ``*.safetensors``.
        opener: Gives the function that opens a network: of a finished record, the name of its file (empty for the one that the paper
            chooses) and the device. The function raises :class:`drstudy.explain.one.UnexplainableError` if that network has no map of its
            answer, and names those that have one.
    """

    notebook: str
    files: str
    opener: Callable[[], Callable[[Record, str, Compute], Explainer]]
