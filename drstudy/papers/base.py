"""What a paper declares: its notebooks with their parameters, its stages, and what report, ledger and pages show of them.

``drstudy/papers/<paper>/paper.py`` makes one :class:`Paper`, and ``registry.py`` lists the papers. Everything that is common to all
papers (planning, Snakemake, the report, the claims ledger, the figures of README.md and docs/, the command line) reads these declarations
and names no paper. Importing them loads neither torch nor pandas; what needs them is imported inside a function.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from drstudy.core import params, paths
from drstudy.papers.explainable import Explainable

if TYPE_CHECKING:
    from drstudy.core.records import Record

AUDIT, TRAINING = "01_data_audit", "03_fine_tuning"
"""The two notebooks whose results every paper may build on: the photographs with their split, and the fine-tuned networks."""

BUNDLED = "efficientnet_lite0"
"""The backbone whose ImageNet weights come with a package: the first choice where a notebook compares with one network."""

FINE = "fine"
"""Name of the further audit whose photographs are large enough for maps of small lesions."""

AMD = "amd"
"""Name of the further audit of eyes with age-related macular degeneration."""

AMD_LABELS = "amd_labels"
"""Among :attr:`Profile.data`: labels of age-related macular degeneration, in the audit :data:`AMD` if the profile has it, else in its only one."""

ABLATION_BASE = "paper"
"""Name of the run that the other runs of an :class:`Ablation` differ from."""

ABLATED = r"^[a-z][a-z0-9_]*$"
"""Names of the other runs; the variant is ``<backbone>-seed<seed>-<name>``."""


NOT_REPORTED = "not reported"
"""What a reporting checklist answers where no record says anything."""


class Ablation(BaseModel):
    """Ablation of the paper's unusual choices: its recipe, and the same recipe with one setting changed at a time.

    Attributes:
        backbone: The network.
        recipe: Parameters of all these runs over the recipe that the paper prints, where the profile cannot afford the paper's own
            value. The comparison lists them.
        changes: Name of a run to the parameters that this one run has over those.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    backbone: str
    recipe: dict[str, Any] = Field(default_factory=dict)
    changes: dict[Annotated[str, Field(pattern=ABLATED)], dict[str, Any]] = Field(min_length=1)

    @field_validator("changes")
    @classmethod
    def _base_is_not_a_change(cls, value: dict[str, Any]) -> dict[str, Any]:
        if ABLATION_BASE in value:
            raise ValueError(f"{ABLATION_BASE!r} names the recipe that is changed, and cannot be a change")
        return value


class Profile(BaseModel):
    """``params/<profile>/profile.yaml``: what a profile runs.

    Attributes:
        description: One sentence for ``drstudy reproduce --help`` and the report.
        notebooks: Those that the profile runs; empty is all of the study that is asked for.
        backbones, seeds: One network is fine-tuned for each pair.
        overrides: Parameters of the fine-tuning for one backbone, by its name, over those of the profile's files.
        explained: Backbones whose networks are explained by heatmaps; empty is all.
        data: What the photographs come with beside their grades. A paper of which ``needs`` names something else is left out.
        models_from: The profile whose trained networks are looked at; empty means this one.
        sets_from: Profiles whose photographs are further sets for training and test, each as ``<profile>`` or, for one of its further
            audits, ``<profile>/<variant>``. The first one's fine-tuned :data:`BUNDLED` network is looked at as a start for others.
        audits: Further audits: name of the variant to its parameters. They are of the same photographs with the same split, such as at
            another size, unless they say ``SPLIT_FROM: ""``: then of other photographs with a split of their own. :data:`FINE` is the one for
            maps finer than a grading network needs, :data:`AMD` the one with macular degeneration. One runs only if another stage needs it.
        ablation: Further fine-tuned networks that are compared with each other, and with no other network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    description: str
    notebooks: tuple[str, ...] = ()
    backbones: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31, strict=True)], ...] = Field(default=(0,), min_length=1)
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    explained: tuple[str, ...] = ()
    data: tuple[str, ...] = ("lesion_labels",)
    models_from: str = ""
    sets_from: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*(/[a-z][a-z0-9_]*)?$")], ...] = ()
    audits: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], dict[str, Any]] = Field(
        default_factory=dict
    )
    ablation: Ablation | None = None

    @model_validator(mode="after")
    def _explains_what_it_trains(self) -> Profile:
        for name, values in (
            ("backbones", self.backbones),
            ("seeds", self.seeds),
            ("notebooks", self.notebooks),
            ("sets_from", self.sets_from),
        ):
            if twice := [one for place, one in enumerate(values) if one in values[:place]]:
                raise ValueError(f"{name} names {twice[0]} more than once")
        if other := set(self.explained) - set(self.backbones):
            raise ValueError(f"explained names {', '.join(sorted(other))}, not among the backbones")
        return self

    @property
    def pairs(self) -> tuple[tuple[str, int], ...]:
        """Backbone and seed of every network."""
        return tuple((backbone, seed) for backbone in self.backbones for seed in self.seeds)

    @property
    def variants(self) -> tuple[str, ...]:
        """``<backbone>-seed<seed>`` of every network."""
        return tuple(f"{backbone}-seed{seed}" for backbone, seed in self.pairs)

    @property
    def audit(self) -> str:
        """Result folder of the photographs and their split."""
        return f"results/{self.name}/{AUDIT}"

    @property
    def fine_audit(self) -> str:
        """Result folder of the photographs for fine maps: the audit :data:`FINE` if the profile has it, else :attr:`audit`."""
        return f"{self.audit}/{FINE}" if FINE in self.audits else self.audit

    @property
    def amd_audit(self) -> str:
        """Result folder of the photographs with labels of AMD: the audit :data:`AMD` if the profile has it, else :attr:`audit`."""
        return f"{self.audit}/{AMD}" if AMD in self.audits else self.audit

    @property
    def other_audits(self) -> tuple[str, ...]:
        """Result folders of the photographs of the profiles :attr:`sets_from`."""
        named = (one.partition("/") for one in self.sets_from)
        return tuple("/".join(filter(None, ("results", name, AUDIT, variant))) for name, _, variant in named)

    @property
    def trained(self) -> tuple[str, ...]:
        """Result folders of the networks that this profile fine-tunes, in the order of :attr:`variants`."""
        return tuple(f"results/{self.name}/{TRAINING}/{variant}" for variant in self.variants)

    @property
    def networks(self) -> tuple[str, ...]:
        """Result folders of the networks that are looked at: this profile's, or those of the profile ``models_from``."""
        return tuple(
            f"results/{self.models_from or self.name}/{TRAINING}/{variant}" for variant in self.variants
        )

    @property
    def network(self) -> str:
        """The one of :attr:`networks` that a notebook takes if it compares with one: a pretrained one where there is one."""
        return next((folder for folder in self.networks if BUNDLED in folder), self.networks[0])

    def runs(self, notebook: str) -> bool:
        """Whether the profile runs a notebook, if the study that is asked for has it."""
        return not self.notebooks or notebook in self.notebooks


@dataclass(frozen=True)
class Stage:
    """One run of one notebook.

    Attributes:
        cls: Parameter class of the notebook.
        profile, variant: As in ``results/<profile>/<notebook>[/<variant>]``.
        overrides: Parameters that follow from the profile, over those of its files; ``PROFILE`` and ``VARIANT`` need not be among them.
        needs: Result folders that must be finished first.
        auxiliary: Whether it runs only if another stage that runs needs it.
    """

    cls: type[params.Parameters]
    profile: str
    variant: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    auxiliary: bool = False

    @property
    def notebook(self) -> str:
        """Name of the notebook, without its suffix."""
        return self.cls.notebook

    @property
    def folder(self) -> str:
        """Result folder, as parameters write it."""
        return f"results/{self.profile}/{self.result}"

    @property
    def result(self) -> str:
        """``<notebook>[/<variant>]``, as its record is named."""
        return "/".join(part for part in (self.notebook, self.variant) if part)

    @property
    def name(self) -> str:
        """Short, for log lines: ``03 densenet121-seed0``."""
        return f"{self.notebook[:2]} {self.variant}".strip()

    @property
    def arguments(self) -> str:
        """Arguments of ``drstudy run``."""
        variant = f" --variant {self.variant}" if self.variant else ""
        return f"{self.notebook} --profile {self.profile}{variant}"

    @property
    def record(self) -> Path:
        """Its ``run.json``, whether it exists or not."""
        return paths.resolve(self.folder) / "run.json"

    @property
    def gpus(self) -> int:
        """GPUs to ask a cluster for: one for each process of its training; none if it runs no network, or runs them on the CPU."""
        given = self.parameters().upper()
        return 0 if given.get("DEVICE", "cpu") == "cpu" else given.get("PROCESSES", 1)

    @functools.cached_property
    def whole_machine(self) -> bool:
        """Whether it uses all cores by itself, so that no other stage should run beside it: it has ``WORKERS``, set to one per core."""
        return self.parameters().upper().get("WORKERS") == 0

    @property
    def files(self) -> list[Path]:
        """The parameter files, later ones winning; the smoke profile has none, since it is the notebooks' own defaults."""
        base = paths.root() / "params" / self.profile
        return [path for path in (base / "common.yaml", base / f"{self.notebook}.yaml") if path.is_file()]

    def parameters(self, overrides: Mapping[str, Any] | None = None) -> params.Parameters:
        """All parameters, checked.

        Args:
            overrides: Further UPPER_CASE parameters, over all others.

        Raises:
            drstudy.core.params.ParameterError: If one is unknown or not valid.
        """
        own = {"PROFILE": self.profile} | ({"VARIANT": self.variant} if self.variant else {})
        return params.from_files(self.cls, self.files, {**own, **self.overrides, **(overrides or {})})


def is_ablation(record: Record) -> bool:
    """Whether a record is of a fine-tuned network of an :class:`Ablation`, and so of none that the profile compares."""
    return record.data["notebook"] == TRAINING and bool(re.search(r"-seed\d+-", record.data["variant"]))


@dataclass(frozen=True)
class Notebook:
    """A notebook of a paper.

    Attributes:
        cls: Its parameter class, whose ``notebook`` is its name.
        study: ``core`` is the main study, which ``drstudy reproduce`` runs; ``further`` notebooks run with ``--study all``.
    """

    cls: type[params.Parameters]
    study: Literal["core", "further"] = "further"

    @property
    def name(self) -> str:
        return self.cls.notebook


@dataclass(frozen=True)
class Section:
    """A notebook's part of the report: which of its tables and figures are shown, in which order.

    Attributes:
        notebook: Name of the notebook.
        title, intro: Heading, and a sentence or two below it.
        show: (``table`` or ``figure``, name, caption); what a run did not make is left out.
        across: (table, caption, query): the rows of that table that fit the query, of all runs side by side, where there are several.
        columns: Column of a table to its heading, with the unit, and what it means (may be empty), where :mod:`drstudy.show.readable` does not
            know it. ``<table>/<column>`` is for one table only.
        order: Sections stand in rising order, and in the order of the registry where it is equal.
    """

    notebook: str
    title: str
    intro: str
    show: tuple[tuple[Literal["table", "figure"], str, str], ...]
    across: tuple[tuple[str, str, str], ...] = ()
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    order: int = 50


@dataclass(frozen=True)
class Shown:
    """A file of a result that ``drstudy figures`` copies for README.md and docs/.

    Attributes:
        name: File under ``figures/``. A ``.csv`` file also fills the block of the same name in docs/results.md.
        notebook, variant: The result.
        file: File of that result, such as ``tables/scores.csv``.
        rows: In that block, only rows whose first cell starts with one of these; empty is all.
        profile: The profile of the result, if it is another than the one whose figures are written. The file stays as it was where that
            profile was not run.
    """

    name: str
    notebook: str
    file: str
    variant: str = ""
    rows: tuple[str, ...] = ()
    profile: str = ""


@dataclass(frozen=True)
class OwnData:
    """The data set on which a paper's own numbers were found, as this study would read it.

    Attributes:
        source: ``SOURCE`` of the data audit.
        images: Number of photographs.
    """

    source: str
    images: int


Interval = tuple[float, float, float]
"""A number and the limits of its interval; without an interval these are NaN."""


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """What a paper claims of its system, and the facts by which a rule says whether that can be compared with what is found here.

    Attributes:
        says: The claim in one line, with the number as printed.
        claim: Identifier in the paper's claims ledger; its verdict is shown. Empty if the ledger has no such claim.
        measure: The measure of the side-by-side comparison that the printed number is of, such as ``qwk``; empty if it is of another one.
        source: ``SOURCE`` of a data audit of the photographs of the printed number; empty if this study cannot have them.
        pretrained: Whether the paper's network started from pretrained weights; None if it does not say.
        as_published: Whether the system here is built as the paper says. False means an adaptation by this study.
    """

    says: str
    claim: str = ""
    measure: str = ""
    source: str = ""
    pretrained: bool | None = None
    as_published: bool = False


@dataclass(frozen=True, kw_only=True)
class System:
    """A system of a paper that is compared with the systems of the other papers on the same test eyes.

    Its results leave what the comparison reads: predictions (:mod:`drstudy.evaluation.common`), maps if it has any
    (:mod:`drstudy.explain.measures.common_maps`), and the metrics ``parameters_system``, ``seconds_to_train`` and ``seconds_per_eye``.

    Attributes:
        id: Unique name, such as ``ram``.
        name: As printed. A colon and ``{network}`` at its end stand for the network with the weights that it started from.
        notebook: Whose result has the predictions.
        variants: Regular expression of the variants of that notebook that are such systems; each is one. Of several seeds the first counts.
        mapped_by: The notebook whose result of the same variant has the maps; empty if it is ``notebook``.
        predictions: File of the result with the predictions.
        eyes: Parameter of that notebook that names the result of notebook 01 with the test eyes.
        claimed: What the paper claims of it; None if it claims nothing.
    """

    id: str
    name: str
    notebook: str
    variants: str = r"^$"
    mapped_by: str = ""
    predictions: str = "common_predictions.csv"
    eyes: str = "AUDIT"
    claimed: Claimed | None = None

    @property
    def maps_notebook(self) -> str:
        """The notebook whose result has the maps."""
        return self.mapped_by or self.notebook

    def is_variant(self, variant: str) -> bool:
        """Whether a variant of :attr:`notebook`, or of :attr:`maps_notebook`, is such a system."""
        return bool(re.fullmatch(self.variants, variant))

    def audit_of(self, record: Record) -> str:
        """Result folder of notebook 01 with the test eyes of a result, as its parameters name it; empty if they name none."""
        return str(record.params.get(self.eyes, ""))


def _no_stages(profile: Profile) -> list[Stage]:
    """None by themselves: for a question whose stages all come from :attr:`Paper.across`."""
    return []


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper, or a question of this study, with all that the shared parts need to know of it.

    Attributes:
        id: Name of its folder below ``drstudy/papers``.
        citation: Authors and year, or what stands in their place.
        question: The question, in one sentence.
        notebooks: Its notebooks.
        stages: For a profile, the stages of its notebooks; those whose notebook is not to run are dropped afterwards.
        needs: Names of what the photographs must come with; see :attr:`Profile.data`.
        own_data: The data set of its printed numbers; None if this study cannot have it.
        sections: Its parts of the report.
        figures: What docs/results.md shows.
        claims: Its part of the claims ledger, a YAML file; None if it has none.
        measures: Gives numbers that its claims look up beside tables: name to a function of a record.
        checklists: Reporting checklists about it, YAML files, in the order in which the report links them.
        facts: Gives the facts that checklists may name: name to a function of a profile's name and its finished records.
        systems: Its systems that are compared with those of the other papers.
        explainable: Its networks that explain photographs from outside the study.
        across: For a profile, the stages that read the results of other papers, from the systems of all papers and from the planned stages of
            the papers that have some. None if there are no such stages.
    """

    id: str
    citation: str
    question: str
    notebooks: tuple[Notebook, ...]
    stages: Callable[[Profile], list[Stage]] = _no_stages
    needs: tuple[str, ...] = ()
    own_data: OwnData | None = None
    sections: tuple[Section, ...] = ()
    figures: tuple[Shown, ...] = ()
    claims: Path | None = None
    measures: Callable[[], Mapping[str, Callable[[Record], Interval]]] = dict
    checklists: tuple[Path, ...] = ()
    facts: Callable[[], Mapping[str, Callable[[str, Sequence[Record]], Any]]] = dict
    systems: tuple[System, ...] = ()
    explainable: tuple[Explainable, ...] = ()
    across: Callable[[Profile, Sequence[System], Sequence[Stage]], list[Stage]] | None = None
