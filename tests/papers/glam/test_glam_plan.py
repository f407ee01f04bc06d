"""What notebook 14 learns in which profile, and on what its maps are measured."""

from __future__ import annotations

import pytest
import torch

from drstudy.core.params import ParameterError
from drstudy.papers.base import Profile
from drstudy.papers.glam import maps, paper
from drstudy.papers.glam.params import LESIONS, REFERABLE, TOGETHER, Glam
from drstudy.study import plan

FINE = {"fine": {"IMAGE_SIZE": 512}}


def stages(**given):
    return paper.stages(Profile(name="mine", description="x", backbones=("efficientnet_lite0",), **given))


def test_lesion_labels_are_learnt_where_there_are_some():
    (stage,) = stages()
    assert stage.overrides["AUDIT"] == "results/mine/01_data_audit"
    assert not {"CODES", "LABELS"} & set(stage.overrides)


def test_grades_are_learnt_from_fine_photographs_without_lesion_labels():
    (stage,) = stages(data=(), audits=FINE)
    assert stage.overrides["AUDIT"] == "results/mine/01_data_audit/fine" in stage.needs
    p = Glam(profile="mine", **{name.lower(): value for name, value in stage.overrides.items()})
    assert (p.codes, p.labels, p.mask_epochs) == ((REFERABLE,), "grade", 0)
    assert "masks" not in p.specs
    assert stages(data=()) == [], "a grading network's photographs show no small lesion"


@pytest.mark.parametrize("name", plan.profiles())
def test_networks_that_are_looked_at_fit_the_profile(name):
    """Labels and sizes are those of the profile that trained, or the notebook would refuse its networks."""
    chosen = plan.profile(name)
    stages = [stage for stage in plan.plan(name, "all") if stage.notebook == Glam.notebook]
    for stage in stages:
        p = stage.parameters()
        if chosen.models_from:
            trained = plan.stage(Glam.notebook, chosen.models_from).parameters()
            assert p.trained == f"results/{chosen.models_from}/{Glam.notebook}"
            assert p.subset == "all", "nothing was trained on them"
            for field in ("codes", "labels", "input_size", "grid", "backbone"):
                assert getattr(p, field) == getattr(trained, field), field
        audited = plan.stage_of(p.audit).parameters()
        assert audited.image_size >= p.input_size


def test_profiles_of_real_photographs():
    phantom, real = (
        {f"{data}_{kind}" for data in ("idrid_mini", "diaretdb1_mini")} for kind in ("phantom", "real")
    )
    for names, source in ((phantom, "demo"), (real, "real_mini")):
        for name in names:
            assert plan.profile(name).models_from == source
            assert plan.stage(Glam.notebook, name).parameters().regions == (*LESIONS, TOGETHER)
    planned = {n for n in plan.profiles() if any(s.notebook == Glam.notebook for s in plan.plan(n, "all"))}
    assert planned == {"smoke", "demo", "demo_fresh", "real_mini"} | phantom | real


def test_the_one_map_of_a_grade_is_measured_on_every_lesion():
    p = Glam(codes=[REFERABLE], labels="grade", mask_epochs=0)
    assert p.regions == (*LESIONS, TOGETHER)
    reader = object.__new__(maps.Reader)
    reader.p = p
    one = torch.rand(2, 1, p.grid, p.grid)
    found = reader._finished(one)
    assert found.shape == (2, len(p.regions), p.grid, p.grid)
    assert (found == one.numpy()).all()
    reader.p = Glam()
    several = torch.rand(2, len(LESIONS), p.grid, p.grid)
    found = reader._finished(several)
    assert (found[:, :-1] == several.numpy()).all()
    assert (found[:, -1] == several.amax(1).numpy()).all()


def test_a_grade_beside_lesions_is_refused():
    with pytest.raises((ParameterError, ValueError), match="must be the only label"):
        Glam(codes=[REFERABLE, "MA"], labels="grade")
