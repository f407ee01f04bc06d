"""The main study: Nian & Jin 2025, fine-tuned backbones, oversampling and heatmaps (notebooks 00 to 06)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drstudy.papers.base import (
    ABLATION_BASE,
    TRAINING,
    Claimed,
    Interval,
    Notebook,
    OwnData,
    Paper,
    Profile,
    Shown,
    Stage,
    System,
)
from drstudy.papers.explainable import Explainable
from drstudy.papers.transfer import params, sections

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.core.records import Record
    from drstudy.explain.one import Explainer

HERE = Path(__file__).parent

COMPARISON = params.BackboneComparison.notebook
OVERSAMPLING = params.Oversampling.notebook
HEATMAPS = params.HeatmapAnalysis.notebook
EXPLAINED = "efficientnet_lite0-seed0"
"""The network whose heatmaps the README shows: it is pretrained wherever this runs."""


def stages(profile: Profile) -> list[Stage]:
    """The stages of a profile, each after those that it needs."""
    name, audit = profile.name, profile.audit
    trained, explained, ablated = _trained(profile), _explained(profile), _ablated(profile)
    compared = _compared(profile, explained, ablated)
    read = [
        folder for value in compared.values() for folder in ([value] if isinstance(value, str) else value)
    ]
    return [
        Stage(params.PaperAudit, name),
        Stage(params.DataAudit, name),
        *_further_audits(profile),
        Stage(params.Oversampling, name, overrides={"AUDIT": audit}, needs=(audit,)),
        *trained,
        *explained,
        *ablated,
        Stage(params.BackboneComparison, name, overrides=compared, needs=tuple(read)),
        Stage(params.Reliability, name, overrides={"RUNS": list(profile.trained)}, needs=profile.trained),
    ]


def _further_audits(profile: Profile) -> list[Stage]:
    """The same photographs and the same split again, with other parameters; or, where ``SPLIT_FROM`` is empty, other photographs."""
    found = []
    for variant, values in profile.audits.items():
        own = {"SPLIT_FROM": profile.audit} | values
        needs = tuple(filter(None, (own["SPLIT_FROM"],)))
        found.append(Stage(params.DataAudit, profile.name, variant, own, needs, auxiliary=True))
    return found


def _trained(profile: Profile) -> list[Stage]:
    """One fine-tuning for each backbone and seed."""
    found = []
    for variant, (backbone, seed) in zip(profile.variants, profile.pairs):
        own = {"AUDIT": profile.audit, "BACKBONE": backbone, "SEED": seed}
        own |= profile.overrides.get(backbone, {})
        found.append(Stage(params.FineTuning, profile.name, variant, own, (profile.audit,)))
    return found


def _explained(profile: Profile) -> list[Stage]:
    """Heatmaps of each network that is explained, beside those of the same backbone with other seeds."""
    found = []
    for variant, model, (backbone, _) in zip(profile.variants, profile.networks, profile.pairs):
        if backbone not in (profile.explained or profile.backbones):
            continue
        alike = [folder for folder, (other, _) in zip(profile.networks, profile.pairs) if other == backbone]
        others = [folder for folder in alike if folder != model]
        own = {"AUDIT": profile.audit, "MODEL": model, "OTHERS": others}
        needs = (profile.audit, model, *others)
        found.append(Stage(params.HeatmapAnalysis, profile.name, variant, own, needs))
    return found


def _ablated(profile: Profile) -> list[Stage]:
    """Fine-tunings for the profile's ablation, the paper's recipe first."""
    if profile.ablation is None:
        return []
    backbone, seed = profile.ablation.backbone, profile.seeds[0]
    recipe = params.paper_recipe() | profile.ablation.recipe
    found = []
    for change, values in ({ABLATION_BASE: {}} | profile.ablation.changes).items():
        own = {"AUDIT": profile.audit, "BACKBONE": backbone, "SEED": seed} | recipe | values
        variant = f"{backbone}-seed{own['SEED']}-{change}"
        found.append(Stage(params.FineTuning, profile.name, variant, own, (profile.audit,)))
    return found


def _compared(profile: Profile, explained: list[Stage], ablated: list[Stage]) -> dict[str, Any]:
    """Parameters of the comparison: the networks, and with an ablation also what the ablation is compared by."""
    compared: dict[str, Any] = {"RUNS": list(profile.trained)}
    if ablated:
        maps = [stage.folder for stage in explained] if profile.runs(HEATMAPS) else []
        compared |= {"ABLATIONS": [stage.folder for stage in ablated], "HEATMAPS": maps}
        compared |= {"LEAKS": f"results/{profile.name}/{OVERSAMPLING}"} if profile.runs(OVERSAMPLING) else {}
    return compared


def opener() -> Callable[[Record, str, Compute], Explainer]:
    """The function that opens a fine-tuned network for ``drstudy explain``."""
    from drstudy.papers.transfer.explaining import open_network

    return open_network


SYSTEMS = (
    System(
        id="paper_network",
        name="Five grades: {network}",
        notebook=TRAINING,
        variants=r"densenet121-seed\d+",
        mapped_by=HEATMAPS,
        predictions="predictions.csv",
        claimed=Claimed(
            says="Nian & Jin 2025: sensitivity 77 %, specificity 91.3 %, accuracy 88.3 % (DenseNet121, at a cut that is not named)",
            claim="table2_densenet121",
            source="eyepacs",
            pretrained=True,
            as_published=True,
        ),
    ),
    System(
        id="backbone",
        name="Five grades: {network}",
        notebook=TRAINING,
        variants=r"(?!densenet121-)[a-z0-9_]+-seed\d+",
        mapped_by=HEATMAPS,
        predictions="predictions.csv",
    ),
)
"""The fine-tuned networks. Maps are Grad-CAM of the most probable grade above 0."""


def measures() -> Mapping[str, Callable[[Record], Interval]]:
    """Numbers of a fine-tuned network that claims look up."""
    from drstudy.papers.transfer.measures import MEASURES

    return MEASURES


def facts() -> Mapping[str, Callable[[str, Sequence[Record]], Any]]:
    """What finished results say for the reporting checklists."""
    from drstudy.papers.transfer.facts import FACTS

    return FACTS


PAPER = Paper(
    id="transfer",
    citation="Nian & Jin 2025",
    question="Does DenseNet121, fine-tuned from ImageNet weights with oversampling, grade diabetic retinopathy best, "
    "and do its heatmaps attend to lesions?",
    notebooks=(
        Notebook(params.PaperAudit, study="core"),
        Notebook(params.DataAudit, study="core"),
        Notebook(params.Oversampling, study="core"),
        Notebook(params.FineTuning, study="core"),
        Notebook(params.BackboneComparison, study="core"),
        Notebook(params.HeatmapAnalysis, study="core"),
        Notebook(params.Reliability, study="core"),
    ),
    stages=stages,
    own_data=OwnData("eyepacs", 35126),
    sections=sections.SECTIONS,
    figures=(
        Shown("table2_ge2.png", COMPARISON, "figures/table2_ge2.png"),
        Shown("recall_by_grade.png", COMPARISON, "figures/recall_by_grade.png"),
        Shown("confusion_matrices.png", COMPARISON, "figures/confusion_matrices.png"),
        Shown("oversampling.png", OVERSAMPLING, "figures/recall_by_grade.png"),
        Shown("heatmap_figure4.jpg", HEATMAPS, "figures/figure4.png", EXPLAINED),
        Shown("heatmap_figure5.jpg", HEATMAPS, "figures/figure5.png", EXPLAINED),
        Shown("heat_shares.png", HEATMAPS, "figures/heat_shares.png", EXPLAINED),
        Shown("table2.csv", COMPARISON, "tables/table2_display.csv", rows=("grade ≥ 2", "not stated")),
        Shown("summary.csv", COMPARISON, "tables/summary.csv"),
        Shown("oddities.csv", COMPARISON, "tables/oddities_display.csv"),
        Shown("leaks.csv", OVERSAMPLING, "tables/leaks_display.csv"),
        Shown("heat.csv", HEATMAPS, "tables/heat_display.csv", EXPLAINED),
    ),
    claims=HERE / "claims.yaml",
    measures=measures,
    checklists=tuple(
        HERE / "checklists" / f"{name}.yaml" for name in ("claim_2024", "tripod_ai", "model_card")
    ),
    facts=facts,
    systems=SYSTEMS,
    explainable=(Explainable(notebook=TRAINING, files="model.safetensors", opener=opener),),
)
