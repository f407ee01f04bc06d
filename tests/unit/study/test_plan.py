"""Stages of a profile: their parameters, their order, and what a profile may say."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest

from drstudy.core import paths
from drstudy.core.params import ParameterError
from drstudy.models import nets
from drstudy.papers import registry
from drstudy.papers.base import ABLATION_BASE, TRAINING, Ablation, Stage
from drstudy.papers.transfer import paper as transfer
from drstudy.papers.transfer import params
from drstudy.study import plan

COMPARISON, OVERSAMPLING = params.BackboneComparison.notebook, params.Oversampling.notebook
HEATMAPS = params.HeatmapAnalysis.notebook
LESIONS, TWO_DISEASES, FINE_MAPS = "12_lesions", "13_sall", "14_glam"
BESIDE, EXTERNAL = "20_side_by_side", "22_external_validation"


@pytest.fixture
def root(own_folders, monkeypatch):
    """A root of its own, with profiles of its own."""
    (own_folders / "notebooks").mkdir()
    monkeypatch.setattr(paths, "root", lambda: own_folders)
    return own_folders


@pytest.mark.parametrize("name", plan.profiles())
def test_all_parameters_of_a_profile_are_valid(name):
    for stage in plan.plan(name, "all"):
        checked = stage.parameters()
        assert (checked.profile, checked.variant) == (name, stage.variant)
        assert paths.show(checked.folder) == stage.folder


@pytest.mark.parametrize("name", plan.profiles())
def test_stages_come_after_what_they_need(name):
    done = set()
    for stage in plan.plan(name, "all"):
        own = {need for need in stage.needs if need.startswith(f"results/{name}/")}
        assert own <= done, stage.name
        done.add(stage.folder)


@pytest.mark.parametrize("name", plan.profiles())
def test_parameters_that_name_results_are_waited_for(name):
    """A result folder that a notebook reads is among the needs of its stage, or Snakemake could start it too early."""
    for stage in plan.plan(name, "all"):
        values = stage.parameters().upper().values()
        named = {
            v
            for value in values
            for v in (value if isinstance(value, list) else [value])
            if str(v).startswith("results/")
        }
        assert named == set(stage.needs), stage.name


def test_smoke_is_the_notebooks_own_defaults():
    """What readers see committed is what the smoke profile runs: only names of networks and their weights are set, and results of other
    notebooks with which a notebook compares where there are any."""
    for stage in plan.plan("smoke", "all"):
        default = registry.parameters(stage.notebook)().upper()
        changed = {name for name, value in stage.parameters().upper().items() if value != default[name]}
        own = set(
            plan.profile("smoke").audits.get(stage.variant, {})
        )  # a further audit has photographs of its own
        names = {"VARIANT", "BACKBONE", "WEIGHTS", "MODEL", "SCORE_MODEL", "LESION_MAPS"}
        assert changed - own <= names | {"RESULTS", "DECLARED"}, stage.name
        assert not stage.files


def test_further_notebooks_run_only_when_all_are_asked_for():
    """The study of the main paper is what `make reproduce` promises in its time; a profile that names its notebooks has those."""
    for name in ("smoke", "demo", "eyepacs_mini", "paper"):
        core, everything = ({s.notebook for s in plan.plan(name, study)} for study in ("core", "all"))
        without = set() if "lesion_labels" in plan.profile(name).data else {LESIONS, FINE_MAPS}
        without |= set() if "amd_labels" in plan.profile(name).data else {TWO_DISEASES}
        assert (
            everything - core
            == {n for n, one in registry.NOTEBOOKS.items() if one.study == "further"} - without
        )
        assert everything == set(registry.NOTEBOOKS) - without
    assert {name for name in plan.profiles() if "lesion_labels" not in plan.profile(name).data} == {
        "dr600_mini",
        "eyepacs_mini",
        "odir",
        "odir_mini",
        "paper",
        "real_mini",
        "rehearsal",
    }
    assert plan.plan("idrid_mini", "all") == plan.plan("idrid_mini")
    assert plan.stage("11", "demo").overrides["MODEL"].endswith("efficientnet_lite0-seed0")
    assert plan.stage("11", "paper").overrides["MODEL"].endswith("densenet121-seed0")
    assert plan.stage("12", "demo").overrides["TRAINED"] == ""
    assert plan.stage("12", "idrid_mini_phantom").overrides["TRAINED"] == "results/demo/12_lesions"


def test_ablation_changes_the_papers_recipe_one_setting_at_a_time():
    """Each run of it: the paper's values, but for what the profile cannot afford, and one named change."""
    chosen = plan.profile("demo").ablation
    stages = {s.variant.split("-")[2]: s for s in plan.plan("demo") if s.variant.count("-") == 2}
    assert list(stages) == [ABLATION_BASE, *chosen.changes]
    base = stages[ABLATION_BASE].parameters()
    afforded = {name.lower() for name in chosen.recipe}
    assert set(params.deviations(base)) <= afforded
    assert (base.head, base.frozen_bn, base.sampler, base.betas) == ("paper", "track", "paper", (0.0, 0.99))
    for name, changes in chosen.changes.items():
        other = stages[name].parameters()
        differing = {k for k, v in other.model_dump().items() if v != getattr(base, k)} - {
            "variant",
            "feature_store",
        }
        assert len(differing) == 1, name
        assert differing <= {key.lower() for key in changes}
    comparison = plan.stage(COMPARISON, "demo").parameters()
    assert comparison.ablations == tuple(s.folder for s in stages.values())
    assert not set(comparison.ablations) & set(comparison.runs)
    assert comparison.leaks == f"results/demo/{OVERSAMPLING}"


def test_a_second_size_of_the_audit_can_be_planned(monkeypatch):
    """A variant of notebook 01 beside the one without a variant, which is still found by its number and its folder."""
    base = plan.stage("01", "demo")
    size = {"IMAGE_SIZE": 512, "PHANTOM_SIZE": 512, "SPLIT_FROM": base.folder}
    second = Stage(type(base.parameters()), "demo", "512px", size, (base.folder,))
    transfer = next(paper for paper in registry.PAPERS if paper.id == "transfer")
    more = dataclasses.replace(transfer, stages=lambda profile: [second, *transfer.stages(profile)])
    papers = tuple(more if paper is transfer else paper for paper in registry.PAPERS)
    monkeypatch.setattr(registry, "PAPERS", papers)
    planned = [stage.folder for stage in plan.plan("demo")]
    assert planned.index(base.folder) < planned.index(f"{base.folder}/512px")
    assert plan.stage("01", "demo") == base
    assert plan.stage_of(base.folder) == base
    assert plan.stage_of(f"{base.folder}/512px") == plan.stage("01", "demo", "512px") == second
    found, own = second.parameters(), base.parameters()
    differing = {name for name, value in found.model_dump().items() if value != getattr(own, name)}
    assert differing == {"variant", "image_size", "phantom_size", "split_from"}


def test_ablation_cannot_name_a_change_as_its_base():
    with pytest.raises(ValueError, match="'paper' names the recipe that is changed"):
        Ablation(backbone="densenet121", changes={"paper": {"HEAD": "single"}})


def test_snakemake_finds_every_variant():
    """The wildcard of the Snakefile takes every variant of every profile, and nothing with a path in it."""
    text = (paths.root() / "Snakefile").read_text()
    pattern = re.search(r'variant="(.+)",', text)[1]
    variants = {stage.variant for name in plan.profiles() for stage in plan.plan(name) if stage.variant}
    assert all(re.fullmatch(pattern, variant) for variant in variants)
    assert not re.fullmatch(pattern, "densenet121-seed0/run")


def test_unknown_names_say_what_there_is():
    with pytest.raises(KeyError, match="There is no study 'whole'; there are core, all"):
        plan.plan("smoke", "whole")
    with pytest.raises(KeyError, match="There is no profile 'dmeo'; there are demo"):
        plan.profile("dmeo")
    with pytest.raises(KeyError, match=r"2 stages '03'(.|\n)*--variant densenet121-seed0"):
        plan.stage("03", "smoke")
    with pytest.raises(KeyError, match="no stage '03 vgg16-seed0'"):
        plan.stage("03", "smoke", "vgg16-seed0")
    assert plan.stage("03", "smoke", "densenet121-seed0").name == "03 densenet121-seed0"


def test_bad_profile_file_is_named(root):
    folder = root / "params" / "mine"
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text("description: x\nbackbones: [densenet121]\nsedes: [1]\n")
    with pytest.raises(ParameterError, match=r"(?s)params/mine/profile.yaml is not a valid profile.*sedes"):
        plan.plan("mine")


def test_overrides_are_of_one_backbone_and_only_those_named_are_explained(root):
    folder = root / "params" / "mine"
    folder.mkdir(parents=True)
    lines = ["description: x", "backbones: [densenet121, vgg16]", "overrides: {vgg16: {EPOCHS: 7}}"]
    (folder / "profile.yaml").write_text("\n".join(lines))

    def variants(notebook):
        return {s.variant: s.parameters() for s in plan.plan("mine") if s.notebook == notebook}

    epochs = {name: p.epochs for name, p in variants(TRAINING).items()}
    assert epochs == {"densenet121-seed0": 3, "vgg16-seed0": 7}
    assert list(variants(HEATMAPS)) == ["densenet121-seed0", "vgg16-seed0"]
    (folder / "profile.yaml").write_text("\n".join([*lines, "explained: [vgg16]"]))
    assert list(variants(HEATMAPS)) == ["vgg16-seed0"]
    assert len(variants(TRAINING)) == 2
    (folder / "profile.yaml").write_text("\n".join([*lines, "explained: [vgg19]"]))
    with pytest.raises(ParameterError, match="explained names vgg19, not among the backbones"):
        plan.plan("mine")


def test_heatmaps_wait_for_the_other_seeds_of_their_backbone():
    stage = plan.stage("05", "paper", "vgg16-seed1")
    others = [f"results/paper/03_fine_tuning/vgg16-seed{seed}" for seed in (0, 2)]
    assert stage.overrides["OTHERS"] == others
    assert set(others) < set(stage.needs)
    assert plan.stage("05", "demo", "densenet121-seed0").overrides["OTHERS"] == []


def stand_in(name: str, *needs: str) -> Stage:
    return Stage(
        params.PaperAudit, "smoke", name, needs=tuple(f"results/smoke/00_paper_audit/{n}" for n in needs)
    )


def test_needs_come_first_whatever_the_order_of_papers():
    """A paper of which the results are read by one that stands before it in the registry."""
    given = [stand_in("a", "c"), stand_in("b"), stand_in("c", "elsewhere"), stand_in("d", "a")]
    assert [s.variant for s in plan.in_order(given)] == ["b", "c", "a", "d"]
    with pytest.raises(ValueError, match="in a circle: 00 a, 00 b"):
        plan.in_order([stand_in("a", "b"), stand_in("b", "a"), stand_in("c")])


def test_a_paper_without_its_data_is_left_out(root):
    folder = root / "params" / "mine"
    folder.mkdir(parents=True)
    for data, there in (("", True), ("data: []", False), ("data: [lesion_labels, amd_labels]", True)):
        (folder / "profile.yaml").write_text(f"description: x\nbackbones: [densenet121]\n{data}\n")
        assert (LESIONS in {s.notebook for s in plan.plan("mine", "all")}) == there


# --- further audits of a profile ---------------------------------------------------------------------------


def test_a_further_audit_runs_only_if_a_stage_needs_it():
    """The core study of demo has no fine maps, so that nobody renders photographs of 512 pixels for it."""
    chosen = plan.profile("demo")
    assert chosen.fine_audit == f"{chosen.audit}/fine"
    whole = {stage.folder: stage for stage in plan.plan("demo", "all")}
    assert chosen.fine_audit not in {stage.folder for stage in plan.plan("demo", "core")}
    further = whole[chosen.fine_audit]
    assert further.auxiliary
    assert further.overrides == chosen.audits["fine"] | {"SPLIT_FROM": chosen.audit}
    assert further.needs == (chosen.audit,)
    users = {stage.notebook for stage in whole.values() if chosen.fine_audit in stage.needs}
    assert users == {FINE_MAPS, EXTERNAL, BESIDE}
    auxiliary = {stage.folder for stage in whole.values() if stage.auxiliary}
    assert auxiliary == {chosen.fine_audit, chosen.amd_audit}
    assert {stage.notebook for stage in whole.values() if chosen.amd_audit in stage.needs} == {TWO_DISEASES}


@pytest.mark.parametrize("name", ["smoke", "demo"])
def test_eyes_with_amd_are_other_eyes_with_a_split_of_their_own(name):
    chosen = plan.profile(name)
    assert "amd_labels" in chosen.data
    assert chosen.amd_audit == f"{chosen.audit}/amd"
    further = {one.folder: one for one in transfer.stages(chosen)}[chosen.amd_audit]
    assert further.auxiliary
    assert further.needs == ()
    p = further.parameters()
    assert p.split_from == ""
    assert sum(p.amd_shares) == pytest.approx(1)
    assert all(not stage.parameters().amd_shares for stage in transfer.stages(chosen)[1:2]), (
        "the main audit has none"
    )


def test_a_profile_without_further_audits_takes_its_only_one():
    chosen = plan.profile("smoke")
    assert "fine" not in chosen.audits
    assert chosen.fine_audit == chosen.audit
    assert plan.profile("odir_mini").amd_audit == plan.profile("odir_mini").audit
    other = chosen.model_copy(update={"audits": {"large": {"IMAGE_SIZE": 1024}}})
    assert other.fine_audit == chosen.audit, "only the one of this name is for fine maps"
    assert plan.stage(FINE_MAPS, "smoke").overrides["AUDIT"] == chosen.audit


def test_an_auxiliary_stage_of_any_paper_waits_to_be_needed(monkeypatch):
    base = plan.stage("01", "smoke")
    extra = Stage(type(base.parameters()), "smoke", "extra", {}, (base.folder,), auxiliary=True)
    transfer = next(paper for paper in registry.PAPERS if paper.id == "transfer")

    def planned(*more: Stage) -> list[str]:
        changed = dataclasses.replace(
            transfer, stages=lambda profile: [extra, *more, *transfer.stages(profile)]
        )
        with monkeypatch.context() as patch:
            papers = [changed if paper is transfer else paper for paper in registry.PAPERS]
            patch.setattr(registry, "PAPERS", papers)
            return [stage.folder for stage in plan.plan("smoke")]

    assert extra.folder not in planned()
    user = dataclasses.replace(plan.stage("02", "smoke"), variant="user", needs=(extra.folder,))
    found = planned(user)
    assert found.index(base.folder) < found.index(extra.folder) < found.index(user.folder)


@pytest.mark.parametrize("name", ["smoke", "demo"])
def test_lesions_are_outlined_after_their_finer_maps(name):
    """Notebook 12 waits for 14, which does not wait for 12; notebook 05, of the core study, waits for neither."""
    found = [stage.notebook for stage in plan.plan(name, "all")]
    assert found.index(FINE_MAPS) < found.index(LESIONS)
    assert plan.stage("12", name).overrides["LESION_MAPS"] == f"results/{name}/{FINE_MAPS}"
    assert not any(LESIONS in need for need in plan.stage("14", name).needs)
    for stage in plan.plan(name, "core"):
        assert "LESION_MAPS" not in stage.overrides


def test_a_profile_without_finer_maps_outlines_its_own():
    lesions = next(paper for paper in registry.PAPERS if paper.id == "lesions")
    alone = plan.profile("demo").model_copy(update={"notebooks": (LESIONS,)})
    (stage,) = lesions.stages(alone)
    assert stage.overrides["LESION_MAPS"] == ""
    assert not any(FINE_MAPS in need for need in stage.needs)


def test_profiles_are_read_without_torch():
    """Every command reads profiles at its start, and torch takes seconds to load."""
    code = "from drstudy.study import plan; [plan.plan(n, 'all') for n in plan.profiles()]; import sys; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False"]


def test_backbones_that_are_known_without_torch_exist():
    assert set(nets.names()) >= plan.COMMON


def test_the_comparison_of_systems_comes_after_all_results_of_papers_with_systems():
    """It runs only when all notebooks are asked for, and forces none to run otherwise."""
    everything = plan.plan("demo", "all")
    stage = everything[[one.notebook for one in everything].index(BESIDE)]
    own = {one.name for paper in registry.PAPERS if paper.systems for one in paper.notebooks}
    eyes = (plan.profile("demo").audit, plan.profile("demo").fine_audit)
    expected = {
        one.folder for one in everything if one.notebook in own and (not one.auxiliary or one.folder in eyes)
    }
    assert set(stage.needs) == expected
    named = {one.folder for one in everything if one.folder in expected and not one.auxiliary}
    assert set(stage.overrides["RESULTS"]) == named
    assert stage.overrides["REFERENCE"].endswith("efficientnet_lite0-seed0")
    assert BESIDE not in {one.notebook for one in plan.plan("demo", "core")}
    assert "results/eyepacs_mini/12_lesions" not in plan.stage("20", "eyepacs_mini").needs


def test_a_changed_declaration_runs_the_comparison_again(monkeypatch):
    before = plan.stage("20", "smoke").overrides["DECLARED"]
    systems = registry.systems()
    monkeypatch.setattr(
        registry, "systems", lambda: [dataclasses.replace(systems[0], name="Another"), *systems[1:]]
    )
    assert plan.stage("20", "smoke").overrides["DECLARED"] != before


def test_two_systems_of_one_identifier_are_refused(monkeypatch):
    paper = next(one for one in registry.PAPERS if one.systems)
    monkeypatch.setattr(registry, "PAPERS", (paper, paper))
    with pytest.raises(ValueError, match="Two systems have the identifier"):
        registry.systems()
