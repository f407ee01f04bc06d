"""Bad settings: types, limits, YAML, files of a profile, names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import Case

from drstudy.core import paths
from drstudy.core.params import ParameterError, from_files
from drstudy.papers.lesions.params import Lesions
from drstudy.papers.ram.params import Ram
from drstudy.papers.transfer import params
from drstudy.papers.views.params import ViewsStudy
from drstudy.study import plan

TUNING = params.FineTuning

VALUES: list[tuple[type, str, Any]] = [
    (TUNING, "EPOCHS", True),
    (TUNING, "EPOCHS", "1_0"),
    (TUNING, "EPOCHS", "１０"),
    (TUNING, "EPOCHS", "0x10"),
    (TUNING, "EPOCHS", 0),
    (TUNING, "EPOCHS", 2.5),
    (TUNING, "EPOCHS", None),
    (TUNING, "EPOCHS", [3]),
    (TUNING, "EPOCHS", 10**12),
    (TUNING, "BATCH_SIZE", 10**105),
    (TUNING, "BATCH_SIZE", "many"),
    (TUNING, "LEARNING_RATE", True),
    (TUNING, "LEARNING_RATE", "1_0e-3"),
    (TUNING, "LEARNING_RATE", 0),
    (TUNING, "LEARNING_RATE", float("nan")),
    (TUNING, "LEARNING_RATE", float("inf")),
    (TUNING, "WEIGHT_DECAY", 1.0e308),
    (TUNING, "WEIGHT_DECAY", -1),
    (TUNING, "RESAMPLES", 10**12),
    (TUNING, "RESAMPLES", False),
    (TUNING, "THREADS", 1_000_000),
    (TUNING, "THREADS", -1),
    (TUNING, "PROCESSES", 10**6),
    (TUNING, "SEED", 2**31),
    (TUNING, "SEED", True),
    (TUNING, "VIEWS", 10**9),
    (TUNING, "FEATURE_STORE", "yes"),
    (TUNING, "FEATURE_STORE", 1),
    (TUNING, "COMPILE", "off"),
    (TUNING, "BACKBONE", 7),
    (TUNING, "BACKBONE", b"vgg16"),
    (TUNING, "BETAS", (True, 0.9)),
    (TUNING, "BETAS", "0.9, 0.99"),
    (TUNING, "BETAS", (0.9,)),
    (TUNING, "HEAD", True),
    (TUNING, "INPUT_SIZE", 10**6),
    (TUNING, "VARIANT", "../../x"),
    (TUNING, "VARIANT", "a b"),
    (TUNING, "PROFILE", "a/b"),
    (TUNING, "EPOCH", 3),
    (params.DataAudit, "N_PATIENTS", 10**12),
    (params.DataAudit, "N_PATIENTS", True),
    (params.DataAudit, "DISTRIBUTION", "nonsense"),
    (params.DataAudit, "IMAGE_SIZE", 16),
    (params.DataAudit, "FRACTIONS", (0.6, 0.6, -0.2)),
    (params.DataAudit, "FRACTIONS", (True, False, False)),
    (params.DataAudit, "FRACTIONS", 0.6),
    (params.DataAudit, "WORKERS", 10**6),
    (params.DataAudit, "MAX_MEGAPIXELS", 1e300),
    (params.DataAudit, "MOST_LOST", 1.5),
    (params.DataAudit, "MOST_LOST", True),
    (params.DataAudit, "PATIENT_PATTERN", "(unclosed"),
    (params.DataAudit, "PATIENT_PATTERN", r"\d+"),
    (params.DataAudit, "SOURCE", "kaggle"),
    (params.DataAudit, "IGNORE", "folder"),
    (params.Oversampling, "SAMPLERS", ()),
    (params.Oversampling, "SAMPLERS", ("paper", "paper", "none")),
    (params.Oversampling, "LEAK_FOLDS", True),
    (params.BackboneComparison, "RUNS", ("results/a/03/x", "results/a/03/x")),
    (params.BackboneComparison, "RUNS", ()),
    (params.Reliability, "RUNS", ("results/a/03/x", "results/a/03/x")),
    (params.Reliability, "CUT", True),
    (params.Reliability, "SPECIFICITIES", ()),
    (params.HeatmapAnalysis, "MAX_IMAGES", 10**15),
    (params.HeatmapAnalysis, "TOLERANCE", "0_1"),
    (Lesions, "GAMMA", 1e300),
    (Lesions, "HEAVIEST", True),
    (Lesions, "CODES", ("MA", "MA")),
    (Ram, "TIMED_ROUNDS", 10**12),
    (Ram, "SIZES", (True,)),
    (ViewsStudy, "REPEATS", 10**12),
    (ViewsStudy, "VIEWS_COMPARED", (1, True, 0)),
]
"""Values that must be refused by an error that names the field."""

TEXTS: dict[str, tuple[str | bytes, str]] = {
    "a key given twice": ("EPOCHS: 2\nEPOCHS: 50\n", "EPOCHS is given more than once"),
    "octal 010": ("EPOCHS: 010\n", "EPOCHS"),
    "sexagesimal 1:30": ("EPOCHS: 1:30\n", "EPOCHS"),
    "1_0": ("EPOCHS: 1_0\n", "EPOCHS"),
    "yes for true": ("FEATURE_STORE: yes\n", "FEATURE_STORE"),
    "True for a number": ("EPOCHS: true\n", "EPOCHS"),
    "a leading underscore": ("_EPOCHS: 3\n", "_EPOCHS"),
    "lower case": ("epochs: 3\n", "UPPER CASE"),
    "a misspelt name": ("EPOCH: 3\n", "did you mean EPOCHS?"),
    "a tab": ("EPOCHS:\n\t- 3\n", "line 2"),
    "an unclosed bracket": ("BETAS: [0.9\n", "03_fine_tuning.yaml"),
    "two documents": ("EPOCHS: 2\n---\nEPOCHS: 3\n", "03_fine_tuning.yaml"),
    "a tag that calls Python": (
        "EPOCHS: !!python/object/apply:os.system ['touch pwn']\n",
        "03_fine_tuning.yaml",
    ),
    "a list": ("- EPOCHS\n", "flat mapping"),
    "a text": ("EPOCHS\n", "flat mapping"),
    "a mapping inside": ("EPOCHS: {A: 1}\n", "flat mapping"),
    "an unknown anchor": ("EPOCHS: *x\n", "03_fine_tuning.yaml"),
    "an anchor in itself": ("EPOCHS: &x [*x]\n", "EPOCHS"),
    "nested without end": ("EPOCHS: " + "[" * 3000, "03_fine_tuning.yaml"),
    "UTF-16": ("EPOCHS: 2\n".encode("utf-16"), "UTF-8"),
    "binary": (b"\xff\x00\x01\x02", "UTF-8"),
    "zero bytes": (b"EPOCHS: 2\n\0\0\0", "03_fine_tuning.yaml"),
    "a key that is a list": ("[1, 2]: 3\n", "03_fine_tuning.yaml"),
    "a key that is a number": ("3: 4\n", "03_fine_tuning.yaml"),
}

PROFILES: dict[str, tuple[str, str]] = {
    "a key given twice": (
        "backbones: [vgg16]\nbackbones: [densenet121]\n",
        "backbones is given more than once",
    ),
    "an unknown key": ("backbones: [vgg16]\nsedes: [1]\n", "sedes"),
    "an unknown backbone": ("backbones: [efficientnet_lite77]\n", "efficientnet_lite77"),
    "a backbone with a space": ("backbones: ['a b']\n", "a b"),
    "a backbone that is a command": ("backbones: ['x; touch pwn']\n", "touch pwn"),
    "a backbone that is a path": ("backbones: ['../../x']\n", "../../x"),
    "an empty backbone": ("backbones: ['']\n", "''"),
    "a backbone twice": ("backbones: [vgg16, vgg16]\n", "vgg16 more than once"),
    "no backbones": ("backbones: []\n", "backbones"),
    "a seed twice": ("backbones: [vgg16]\nseeds: [0, 0]\n", "0 more than once"),
    "a seed that is true": ("backbones: [vgg16]\nseeds: [true]\n", "seeds"),
    "a seed below 0": ("backbones: [vgg16]\nseeds: [-1]\n", "seeds"),
    "a misspelt notebook": (
        "backbones: [vgg16]\nnotebooks: [03_fine_tunning]\n",
        "did you mean 03_fine_tuning?",
    ),
    "notebooks by number": ("backbones: [vgg16]\nnotebooks: ['03']\n", "03"),
    "overrides of another backbone": (
        "backbones: [vgg16]\noverrides: {densenet121: {EPOCHS: 1}}\n",
        "densenet121",
    ),
    "explained that is not trained": ("backbones: [vgg16]\nexplained: [densenet121]\n", "densenet121"),
    "models_from of no profile": ("backbones: [vgg16]\nmodels_from: nowhere\n", "nowhere"),
    "models_from that is a path": ("backbones: [vgg16]\nmodels_from: ../demo\n", "../demo"),
    "models_from that is a command": ("backbones: [vgg16]\nmodels_from: x; touch pwn\n", "touch pwn"),
    "sets_from of no profile": ("backbones: [vgg16]\nsets_from: [nowhere]\n", "nowhere"),
    "sets_from of no audit": ("backbones: [vgg16]\nsets_from: [demo/coarse]\n", "no further audit 'coarse'"),
    "sets_from twice": ("backbones: [vgg16]\nsets_from: [demo, demo]\n", "demo more than once"),
    "sets_from that is a path": ("backbones: [vgg16]\nsets_from: [../demo]\n", "sets_from"),
    "a list": ("- backbones\n", "mapping"),
    "broken YAML": ("backbones: [vgg16\n", "profile.yaml"),
}

NAMES = (
    "x; touch pwn",
    "$(touch pwn)",
    "`touch pwn`",
    "a b",
    "a'b",
    'a"b',
    "a{b}",
    "a=b",
    "MyData",
    "ünï",
    "../params/demo",
    "a..b",
    ".hidden",
    "-x",
    "",
    "a/b",
    "a\nb",
    "x" * 65,
    "con",  # Windows has no folder of this name, and none that ends with a full stop
    "lpt1.x",
    "a.",
)
GOOD_NAMES = ("2024", "1e3", "true", "null", "007", "1_0", "0x10", "2024-01-01", "yes", "a.b", "a-b_c")


def refused(do: Callable[[], Any]) -> tuple[str, str]:
    try:
        do()
    except (ParameterError, KeyError) as error:
        return "refused", str(error)
    return "used", ""


def project(folder: Path, name: str, profile: str = "", **files: str | bytes) -> None:
    """A copy of the folder ``params`` with one more profile, in the place of the project's."""
    root = folder / "project"
    shutil.copytree(paths.root() / "params", root / "params")
    own = root / "params" / name
    own.mkdir()
    (own / "profile.yaml").write_text(profile or "description: x\nbackbones: [vgg16]\n")
    for file, content in files.items():
        target = own / file.replace("__", ".")
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    (root / "notebooks").mkdir()
    (root / "pyproject.toml").touch()


def cases() -> list[Case]:
    found = [
        Case(
            "values of parameters",
            f"{kind.__name__} {name} = {str(value)[:30]!r} ({type(value).__name__})",
            "refused",
            lambda _, k=kind, n=name, v=value: refused(lambda: k.check({n: v})),
            (name,),
        )
        for kind, name, value in VALUES
    ]
    for name, (content, says) in TEXTS.items():

        def text(folder: Path, content=content) -> tuple[str, str]:
            file = folder / "03_fine_tuning.yaml"
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
            return refused(lambda: from_files(TUNING, [file]))

        found.append(Case("parameter files", name, "refused", text, (says,)))
    for name, (content, says) in PROFILES.items():
        found.append(Case("profile.yaml", name, "refused", _profile(content), (says,)))
    for name in ("03_finetuning.yaml", "03_fine_tuning.yml", "commons.yaml"):
        found.append(
            Case(
                "profile.yaml",
                f"a file named {name} beside it",
                "refused",
                _profile("", **{name.replace(".", "__"): "EPOCHS: 1\n"}),
                (name,),
            )
        )
    for name in NAMES:
        found.append(
            Case(
                "names of profiles",
                repr(name[:20]),
                "refused",
                lambda _, n=name: refused(lambda: plan.plan(n)),
                ("profile name",),
            )
        )
    for name in GOOD_NAMES:
        found.append(Case("names of profiles", repr(name), "used", _profile("", name)))
    return found


def _profile(content: str, name: str = "mine", **files: str) -> Callable[[Path], tuple[str, str]]:
    def run(folder: Path) -> tuple[str, str]:
        with pytest.MonkeyPatch.context() as patch:
            project(
                folder,
                name,
                content and f"description: x\n{content}" if not content.startswith("-") else content,
                **files,
            )
            patch.setattr(paths, "root", lambda: folder / "project")
            return refused(lambda: plan.plan(name))

    return run
