"""The papers of this study, and what follows from their list. A new paper adds one line here."""

from __future__ import annotations

from drstudy.core.params import Parameters
from drstudy.papers.lesions import params as lesions
from drstudy.papers.ram import params as ram
from drstudy.papers.transfer import params as transfer
from drstudy.papers.views import params as views

BY_NOTEBOOK: dict[str, type[Parameters]] = {
    cls.notebook: cls
    for cls in (
        transfer.PaperAudit,
        transfer.DataAudit,
        transfer.Oversampling,
        transfer.FineTuning,
        transfer.BackboneComparison,
        transfer.HeatmapAnalysis,
        transfer.Reliability,
        ram.Ram,
        lesions.Lesions,
        views.ViewsStudy,
    )
}
"""The parameter class of each notebook."""


def parameters(notebook: str) -> type[Parameters]:
    """The parameter class of a notebook.

    Raises:
        KeyError: If there is no such notebook, with the names that exist.
    """
    if notebook not in BY_NOTEBOOK:
        raise KeyError(f"There is no notebook {notebook!r}; there are {', '.join(BY_NOTEBOOK)}.")
    return BY_NOTEBOOK[notebook]
