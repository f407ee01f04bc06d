"""Parameters: what papermill hands over, checked; the recipes of all profiles; the paper's recipe."""

from __future__ import annotations

import math
import re

import pytest

from drstudy.core import paths
from drstudy.core.params import ParameterError, from_files
from drstudy.papers import registry
from drstudy.papers.transfer import params
from drstudy.papers.views.params import ViewsStudy
from drstudy.study.plan import plan, profiles
from drstudy.training.recipe import SHORTENED

STAGES = [stage for name in profiles() for stage in plan(name, "all")]


def test_unknown_name_is_refused_and_the_nearest_named():
    with pytest.raises(ParameterError, match=r"EPOCH is not a parameter .* did you mean EPOCHS\?"):
        params.FineTuning.check({"EPOCH": 3})


def test_every_problem_is_listed_at_once_with_notebook_and_value():
    with pytest.raises(ParameterError) as caught:
        params.FineTuning.check({"BATCHSIZE": 3, "EPOCHS": 0, "HEAD": "double"})
    text = str(caught.value)
    assert "notebook 03_fine_tuning" in text
    assert "BATCH_SIZE" in text
    assert "EPOCHS = 0" in text
    assert "'paper', 'single' or 'mlp'" in text


def test_yaml_scientific_notation_arrives_as_text_and_is_a_number(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("LEARNING_RATE: 1e-4\nBETAS: [0, 9e-1]\n")
    checked = from_files(params.FineTuning, [file])
    assert checked.learning_rate == 1e-4
    assert checked.betas == (0.0, 0.9)


def test_only_upper_case_names_of_a_notebook_are_parameters():
    import os as MODULE

    names = {"EPOCHS": 2, "epochs": 9, "In": [], "MODULE": MODULE, "TYPE": int, "_IH": 1, "__doc__": ""}
    assert params.FineTuning.check(names).epochs == 2


@pytest.mark.parametrize("given", [(0.5, 0.25, 0.25), [0.5, 0.25, 0.25]])
def test_tuples_may_come_as_lists(given):
    assert params.DataAudit.check({"FRACTIONS": given}).fractions == (0.5, 0.25, 0.25)


@pytest.mark.parametrize(
    ("notebook", "name", "value"),
    [
        (params.FineTuning, "LEARNING_RATE", 0),
        (params.FineTuning, "LEARNING_RATE", math.nan),
        (params.FineTuning, "LEARNING_RATE", "fast"),
        (params.FineTuning, "WEIGHT_DECAY", math.inf),
        (params.FineTuning, "EPOCHS", 2.5),
        (params.FineTuning, "EPOCHS", None),
        (params.FineTuning, "BETAS", (0.0, 1.0)),
        (params.FineTuning, "BETAS", (0.9,)),
        (params.FineTuning, "INPUT_SIZE", 31),
        (params.FineTuning, "SEED", -1),
        (params.FineTuning, "SEED", 2**31),
        (params.FineTuning, "PRECISION", "fp8"),
        (params.FineTuning, "PROFILE", "../elsewhere"),
        (params.FineTuning, "VARIANT", ".."),
        (params.FineTuning, "VARIANT", "a/b"),
        (params.DataAudit, "FRACTIONS", (0.6, 0.6, -0.2)),
        (params.DataAudit, "FRACTIONS", (0.6, 0.2, 0.1)),
        (params.Oversampling, "SAMPLERS", ("paper", "all")),
        (params.BackboneComparison, "RUNS", ()),
        (params.HeatmapAnalysis, "MAX_IMAGES", -1),
    ],
)
def test_wrong_type_or_range_names_the_field(notebook, name, value):
    with pytest.raises(ParameterError, match=name):
        notebook.check({name: value})


def test_a_store_that_would_not_be_exact_is_refused_with_the_way_out():
    with pytest.raises(ParameterError, match=r"FROZEN_BN 'track'.*Set FEATURE_STORE to False"):
        params.FineTuning.check({"FROZEN_BN": "track", "FEATURE_STORE": True})
    with pytest.raises(ParameterError, match=r"VIEWS 0 .*Set FEATURE_STORE to False or VIEWS"):
        params.FineTuning.check({"VIEWS": 0, "FEATURE_STORE": True})
    assert params.FineTuning.check({"FROZEN_BN": "track", "VIEWS": 0, "FEATURE_STORE": False}).views == 0


def test_checked_parameters_cannot_be_changed():
    p = params.FineTuning()
    with pytest.raises(Exception, match="frozen"):
        p.epochs = 5


def test_upper_goes_back_through_check():
    for notebook in registry.NOTEBOOKS.values():
        p = notebook.cls(seed=7)
        assert notebook.cls.check(p.upper()) == p


def test_folder_has_profile_notebook_and_variant(own_folders):
    p = params.FineTuning(profile="demo", variant="vgg16-seed1")
    assert p.folder == own_folders / "results/demo/03_fine_tuning/vgg16-seed1"
    assert params.DataAudit().folder == own_folders / "results/smoke/01_data_audit"


# --- the paper's recipe ----------------------------------------------------------------------------

PRINTED = {  # docs/sources.md, A2 to A4
    "WEIGHTS": "imagenet",
    "HEAD": "paper",
    "FROZEN_BN": "track",
    "SAMPLER": "paper",
    "EPOCHS": 100,
    "BATCH_SIZE": 256,
    "LEARNING_RATE": 1e-4,
    "BETAS": (0.0, 0.99),
    "VIEWS": 0,
    "FEATURE_STORE": False,
    "INPUT_SIZE": 224,
}


def test_the_printed_recipe_deviates_in_nothing_and_a_changed_one_in_what_was_changed():
    paper = params.FineTuning.check(PRINTED)
    assert params.deviations(paper) == {}
    assert params.deviations(paper.upper()) == {}, "as run.json keeps it: lists for tuples"
    changed = params.FineTuning.check(PRINTED | {"HEAD": "single", "BETAS": [0.9, 0.999], "RESAMPLES": 5})
    assert params.deviations(changed) == {"head": ("single", "paper"), "betas": ((0.9, 0.999), (0.0, 0.99))}


def test_what_was_used_instead_of_the_weights_asked_for_is_a_deviation():
    recipe = params.FineTuning.check(PRINTED).model_dump() | {"weights": "none"}
    assert params.deviations(recipe) == {"weights": ("none", "imagenet")}


def test_the_paper_profile_trains_the_printed_recipe():
    stages = [stage for stage in plan("paper") if stage.notebook == "03_fine_tuning"]
    assert {stage.parameters().backbone for stage in stages} == {"densenet121", "resnet101", "vgg16"}
    for stage in stages:
        assert params.deviations(stage.parameters()) == {}, stage.variant


# --- a shorter recipe without pretraining -------------------------------------------------------------

TRAINED = (params.FineTuning, params.Oversampling, ViewsStudy)


@pytest.mark.parametrize("notebook", TRAINED)
def test_without_pretraining_has_the_named_settings_and_leaves_all_others(notebook):
    p = notebook.check(
        {"WITHOUT_PRETRAINING": {"EPOCHS": 2, "LEARNING_RATE": "1e-4", "BETAS": [0, 0.9]}, "SEED": 5}
    )
    assert p.without_pretraining == {"EPOCHS": 2, "LEARNING_RATE": 1e-4, "BETAS": [0.0, 0.9]}, (
        "numbers, not text"
    )
    short = p.shortened()
    assert (short.epochs, short.learning_rate, short.betas) == (2, 1e-4, (0.0, 0.9))
    changed = {name for name, value in short.model_dump().items() if value != getattr(p, name)}
    assert changed == {"epochs", "learning_rate", "betas", "without_pretraining"}
    assert short.shortened() == short, "it has no shorter one"
    assert notebook.check(p.upper()) == p


def test_by_default_no_recipe_is_shorter():
    for notebook in TRAINED:
        assert notebook().without_pretraining == {}
        assert notebook().shortened() == notebook()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"EPOCS": 2}, r"WITHOUT_PRETRAINING: EPOCS is not a setting of it; did you mean EPOCHS\?"),
        ({"epochs": 2}, r"epochs is not a setting of it; did you mean EPOCHS\?"),
        ({"ELSE": 2}, "ELSE is not a setting of it; it may set EPOCHS, VIEWS"),
        ({"EPOCHS": 0}, "WITHOUT_PRETRAINING: EPOCHS = 0: should be greater"),
        ({"EPOCHS": "few"}, "EPOCHS = 'few': should be a whole number"),
        ({"EPOCHS": 0, "VIEWS": -1}, "EPOCHS = 0.*VIEWS = -1"),
        ({"VIEWS": 0}, "WITHOUT_PRETRAINING: VIEWS 0 draws fresh views"),
        (3, "WITHOUT_PRETRAINING = 3"),
    ],
)
def test_a_shorter_recipe_is_checked_as_the_recipe_is(settings, message):
    with pytest.raises(ParameterError, match=message):
        params.FineTuning.check({"WITHOUT_PRETRAINING": settings})


def test_a_shorter_recipe_changes_neither_the_network_nor_where_it_runs():
    settled = set(params.FineTuning.names()) - set(SHORTENED)
    assert {"BACKBONE", "WEIGHTS", "HEAD", "AUDIT", "PROFILE", "VARIANT", "SEED", "DEVICE"} <= settled
    for name in settled:
        with pytest.raises(ParameterError, match=f"{name} cannot differ between networks with and without"):
            params.FineTuning.check({"WITHOUT_PRETRAINING": {name: params.FineTuning().upper()[name]}})


def test_an_ablation_has_no_shorter_recipe_or_pretraining_would_change_more_than_one_thing():
    assert params.FineTuning.check(params.paper_recipe()).without_pretraining == {}
    for stage in plan("demo"):
        if stage.notebook == "03_fine_tuning":
            has = bool(stage.parameters().without_pretraining)
            assert has == (stage.variant.count("-") == 1), stage.variant


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage.profile}-{stage.name}".replace(" ", "-"))
def test_every_stage_of_every_profile_has_valid_parameters_of_its_own(stage):
    p = stage.parameters()
    assert (p.profile, p.variant) == (stage.profile, stage.variant or type(p)().variant * bool(stage.variant))
    assert p.folder == paths.resolve(stage.folder)
    if hasattr(p, "backbone") and stage.variant:
        assert re.fullmatch(rf"{p.backbone}-seed{p.seed}(-[a-z0-9_]+)?", stage.variant)


def test_all_parameter_files_belong_to_a_stage_that_runs():
    read = {file for stage in STAGES for file in stage.files}
    there = set((paths.root() / "params").glob("*/*.yaml"))
    assert {file for file in there - read if file.name != "profile.yaml"} == set()


def test_later_files_and_overrides_win(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("EPOCHS: 4\nSEED: 1\nVIEWS: 3\n")
    second.write_text("EPOCHS: 5\nSEED: 2\n")
    p = from_files(params.FineTuning, [first, second], {"SEED": 3})
    assert (p.views, p.epochs, p.seed) == (3, 5, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {b: 1}", "flat mapping"),
        ("- 1", "flat mapping"),
        ("TRAINING: {EPOCHS: 1}", "flat mapping"),
        ("epochs: 3", "UPPER CASE, not epochs"),
        ("EPOCS: 3", "did you mean EPOCHS"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ParameterError, match=message):
        from_files(params.FineTuning, [file])


def test_only_without_pretraining_holds_settings_in_a_file_and_is_taken_whole(tmp_path):
    first, second, third = (tmp_path / f"{name}.yaml" for name in "abc")
    first.write_text("WITHOUT_PRETRAINING: {EPOCHS: 2, VIEWS: 1}\n")
    second.write_text("WITHOUT_PRETRAINING: {LEARNING_RATE: 1e-4}\n")
    third.write_text("EPOCHS: {VIEWS: 1}\n")
    read = from_files(params.FineTuning, [first]).without_pretraining
    assert read == {"EPOCHS": 2, "VIEWS": 1}
    read = from_files(params.FineTuning, [first, second]).without_pretraining
    assert read == {"LEARNING_RATE": 1e-4}
    with pytest.raises(ParameterError, match=r"c\.yaml must be a flat .*; only WITHOUT_PRETRAINING holds"):
        from_files(params.FineTuning, [third])
    with pytest.raises(ParameterError, match=r"a\.yaml must be a flat mapping of NAME: value\.$"):
        from_files(params.DataAudit, [first])


def test_a_lower_case_override_is_not_silently_dropped():
    with pytest.raises(ParameterError, match="UPPER CASE, not epochs"):
        from_files(params.FineTuning, [], {"epochs": 3})


def test_an_unknown_notebook_names_those_there_are():
    with pytest.raises(KeyError, match="03_fine_tuning"):
        registry.parameters("03_training")
