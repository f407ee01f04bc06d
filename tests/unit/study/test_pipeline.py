"""Stages, their order, and what counts as success: only a finished record of the very run."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import nbformat
import pytest

from drstudy.core import paths, records
from drstudy.core.params import ParameterError
from drstudy.papers.registry import BY_NOTEBOOK
from drstudy.papers.transfer import params
from drstudy.study import pipeline

FINISH = """
from drstudy.core import params, records
run = records.start(params.DataAudit.check(globals()))
"""


@pytest.mark.parametrize("name", pipeline.profiles())
def test_all_parameters_of_a_profile_are_valid(name):
    for stage in pipeline.plan(name, "all"):
        checked = stage.parameters()
        assert (checked.profile, checked.variant) == (name, stage.variant)
        assert paths.show(checked.folder) == stage.folder


@pytest.mark.parametrize("name", pipeline.profiles())
def test_stages_come_after_what_they_need(name):
    done = set()
    for stage in pipeline.plan(name, "all"):
        own = {need for need in stage.needs if need.startswith(f"results/{name}/")}
        assert own <= done, stage.name
        done.add(stage.folder)


@pytest.mark.parametrize("name", pipeline.profiles())
def test_parameters_that_name_results_are_waited_for(name):
    """A result folder that a notebook reads is among the needs of its stage, or Snakemake could start it too early."""
    for stage in pipeline.plan(name, "all"):
        values = stage.parameters().upper().values()
        named = {
            v
            for value in values
            for v in (value if isinstance(value, list) else [value])
            if str(v).startswith("results/")
        }
        assert named == set(stage.needs), stage.name


def test_smoke_is_the_notebooks_own_defaults():
    """What readers see committed is what the smoke profile runs: only names of networks and their weights are set."""
    for stage in pipeline.plan("smoke", "all"):
        default = BY_NOTEBOOK[stage.notebook]().upper()
        changed = {name for name, value in stage.parameters().upper().items() if value != default[name]}
        assert changed <= {"VARIANT", "BACKBONE", "WEIGHTS", "MODEL"}, stage.name
        assert not stage.files


def test_further_notebooks_run_only_when_all_are_asked_for():
    """The study of the main paper is what `make reproduce` promises in its time; a profile that names its notebooks has those."""
    for name in ("smoke", "demo", "eyepacs_mini", "paper"):
        core, everything = ({s.notebook for s in pipeline.plan(name, study)} for study in ("core", "all"))
        without = set() if pipeline.profile(name).lesion_labels else {pipeline.LESIONS}
        assert everything - core == set(pipeline.FURTHER) - without
        assert everything == set(BY_NOTEBOOK) - without
    assert {name for name in pipeline.profiles() if not pipeline.profile(name).lesion_labels} == {
        "eyepacs_mini",
        "paper",
    }
    assert pipeline.plan("idrid_mini", "all") == pipeline.plan("idrid_mini")
    assert pipeline.stage("11", "demo").overrides["MODEL"].endswith("efficientnet_lite0-seed0")
    assert pipeline.stage("11", "paper").overrides["MODEL"].endswith("densenet121-seed0")
    assert pipeline.stage("12", "demo").overrides["TRAINED"] == ""
    assert pipeline.stage("12", "idrid_mini_phantom").overrides["TRAINED"] == "results/demo/12_lesions"


def test_every_stage_has_its_rule():
    """A notebook without a rule in the Snakefile could not be reproduced."""
    rules = (paths.root() / "Snakefile").read_text()
    for notebook in BY_NOTEBOOK:
        assert f'needs("{notebook}")' in rules


def test_ablation_changes_the_papers_recipe_one_setting_at_a_time():
    """Each run of it: the paper's values, but for what the profile cannot afford, and one named change."""
    chosen = pipeline.profile("demo").ablation
    stages = {s.variant.split("-")[2]: s for s in pipeline.plan("demo") if s.variant.count("-") == 2}
    assert list(stages) == [pipeline.BASE, *chosen.changes]
    base = stages[pipeline.BASE].parameters()
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
    comparison = pipeline.stage(pipeline.COMPARISON, "demo").parameters()
    assert comparison.ablations == tuple(s.folder for s in stages.values())
    assert not set(comparison.ablations) & set(comparison.runs)
    assert comparison.leaks == f"results/demo/{pipeline.OVERSAMPLING}"


def test_ablation_cannot_name_a_change_as_its_base():
    with pytest.raises(ValueError, match="'paper' names the recipe that is changed"):
        pipeline.Ablation(backbone="densenet121", changes={"paper": {"HEAD": "single"}})


def test_snakemake_finds_every_variant():
    """The wildcard of the Snakefile takes every variant of every profile, and nothing with a path in it."""
    text = (paths.root() / "Snakefile").read_text()
    pattern = re.search(r'variant="(.+)",', text)[1]
    variants = {
        stage.variant for name in pipeline.profiles() for stage in pipeline.plan(name) if stage.variant
    }
    assert all(re.fullmatch(pattern, variant) for variant in variants)
    assert not re.fullmatch(pattern, "densenet121-seed0/run")


def test_unknown_names_say_what_there_is():
    with pytest.raises(KeyError, match="There is no study 'whole'; there are core, all"):
        pipeline.plan("smoke", "whole")
    with pytest.raises(KeyError, match="There is no profile 'dmeo'; there are demo"):
        pipeline.profile("dmeo")
    with pytest.raises(KeyError, match=r"2 stages '03'(.|\n)*--variant densenet121-seed0"):
        pipeline.stage("03", "smoke")
    with pytest.raises(KeyError, match="no stage '03 vgg16-seed0'"):
        pipeline.stage("03", "smoke", "vgg16-seed0")
    assert pipeline.stage("03", "smoke", "densenet121-seed0").name == "03 densenet121-seed0"


def test_bad_profile_file_is_named(root):
    folder = root / "params" / "mine"
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text("description: x\nbackbones: [densenet121]\nsedes: [1]\n")
    with pytest.raises(ParameterError, match=r"(?s)params/mine/profile.yaml is not a valid profile.*sedes"):
        pipeline.plan("mine")


def test_overrides_are_of_one_backbone_and_only_those_named_are_explained(root):
    folder = root / "params" / "mine"
    folder.mkdir(parents=True)
    lines = ["description: x", "backbones: [densenet121, vgg16]", "overrides: {vgg16: {EPOCHS: 7}}"]
    (folder / "profile.yaml").write_text("\n".join(lines))

    def variants(notebook):
        return {s.variant: s.parameters() for s in pipeline.plan("mine") if s.notebook == notebook}

    epochs = {name: p.epochs for name, p in variants(pipeline.TRAINING).items()}
    assert epochs == {"densenet121-seed0": 3, "vgg16-seed0": 7}
    assert list(variants(pipeline.HEATMAPS)) == ["densenet121-seed0", "vgg16-seed0"]
    (folder / "profile.yaml").write_text("\n".join([*lines, "explained: [vgg16]"]))
    assert list(variants(pipeline.HEATMAPS)) == ["vgg16-seed0"]
    assert len(variants(pipeline.TRAINING)) == 2
    (folder / "profile.yaml").write_text("\n".join([*lines, "explained: [vgg19]"]))
    with pytest.raises(ParameterError, match="explained names vgg19, not among the backbones"):
        pipeline.plan("mine")


def test_source_digest_is_of_the_text_not_of_the_outputs(root):
    write_notebook(root, "1 + 1")
    before = pipeline.source_digest(pipeline.AUDIT)
    file = root / "notebooks" / f"{pipeline.AUDIT}.ipynb"
    notebook = nbformat.read(file, 4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="2")]
    notebook.cells[-1].execution_count = 7
    nbformat.write(notebook, file)
    assert pipeline.source_digest(pipeline.AUDIT) == before
    write_notebook(root, "1 + 2")
    assert pipeline.source_digest(pipeline.AUDIT) != before


@pytest.mark.parametrize("notebook", list(BY_NOTEBOOK))
def test_library_holds_every_module_that_importing_loads(notebook):
    """Against the interpreter: the notebook's own import lines, run, and the drstudy modules that are then there."""
    code = [
        cell["source"] for cell in nbformat.read(paths.root() / "notebooks" / f"{notebook}.ipynb", 4).cells
    ]
    lines = [line for text in code for line in text.splitlines() if line.startswith(("import ", "from "))]
    show = "import sys\nfor m in list(sys.modules.values()):\n    if m.__name__.split('.')[0] == 'drstudy': print(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, show])], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert len(loaded) > 5
    assert loaded <= set(map(str, pipeline.library(notebook)))


def test_library_sees_imports_inside_functions_and_relative_ones():
    found = {
        file.relative_to(paths.root() / "drstudy").as_posix() for file in pipeline.library(pipeline.AUDIT)
    }
    assert "data/phantom/rendering.py" in found  # sources.py imports the phantom where it is asked for
    assert "training.py" not in found


def test_lines_are_whole_and_prefixed(capsys):
    lines = pipeline._Lines("03 x")
    lines.write("half")
    assert capsys.readouterr().out == ""
    lines.write(" a line\n\nnext\n")
    assert capsys.readouterr().out == "[03 x]   half a line\n[03 x]   next\n"


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    code = "import sys, pathlib; from drstudy.study import pipeline\nwith pipeline.alone(pathlib.Path(sys.argv[1]), 'it'): print('in')"

    def other():
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)

    with pipeline.alone(tmp_path, "it"):
        refused = other()
    assert refused.returncode == 1
    assert "Another process is running it" in refused.stderr
    assert other().stdout == "in\n"


def test_unknown_parameter_is_refused_before_a_kernel_starts(own_folders, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    stage = pipeline.stage("03", "smoke", "densenet121-seed0")
    with pytest.raises(
        ParameterError, match=r"EPOHCS is not a parameter of this notebook; did you mean EPOCHS\?"
    ):
        pipeline.run(stage, {"EPOHCS": 3})
    with pytest.raises(ParameterError, match="EPOCHS = 0"):
        pipeline.run(stage, {"EPOCHS": 0})
    with pytest.raises(ParameterError, match=r"WITHOUT_PRETRAINING: EPOHCS .* did you mean EPOCHS\?"):
        pipeline.run(stage, {"WITHOUT_PRETRAINING": {"EPOHCS": 3}})
    assert not stage.record.parent.exists()


@pytest.fixture
def root(own_folders, monkeypatch):
    """A root of its own, for stand-ins of notebook 01."""
    (own_folders / "notebooks").mkdir()
    monkeypatch.setattr(paths, "root", lambda: own_folders)
    return own_folders


def write_notebook(root, code: str) -> None:
    cells = [
        nbformat.v4.new_markdown_cell("# A stand-in"),
        nbformat.v4.new_code_cell("SEED: int = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, root / "notebooks" / f"{pipeline.AUDIT}.ipynb")


STAGE = pipeline.Stage(pipeline.AUDIT, "smoke")


def attempt(root, code: str) -> dict:
    """Run a stand-in that must fail; returns its ``failure.json``."""
    write_notebook(root, code)
    with pytest.raises(pipeline.StageError, match=r"failure\.json") as caught:
        pipeline.run(STAGE, {"SEED": 5})
    failure = json.loads(STAGE.record.with_name("failure.json").read_text())
    assert failure["params"]["SEED"] == 5
    assert failure["reason"] in str(caught.value)
    assert "drstudy run 01_data_audit --profile smoke" in str(caught.value)
    with pytest.raises(records.RecordError):
        records.load(STAGE.folder)
    return failure


@pytest.mark.notebook
def test_finished_record_is_success_and_clears_an_older_failure(root):
    attempt(root, "raise OSError('the disk is full')")
    write_notebook(root, FINISH + "run.metric(seed=SEED)\nrun.finish()")
    record = pipeline.run(STAGE, {"SEED": 5})
    assert record.metrics == {"seed": 5}
    assert record.params["SEED"] == 5
    assert not STAGE.record.with_name("failure.json").exists()
    executed = nbformat.read(record.path("executed.ipynb"), 4)
    assert "SEED = 5" in executed.cells[2].source


@pytest.mark.notebook
def test_failing_cell_is_told_with_its_error(root):
    failure = attempt(root, "raise OSError('the disk is full')")
    assert failure["reason"] == "OSError: the disk is full"
    assert any("OSError" in line for line in failure["traceback"])
    assert not any("\x1b" in line for line in failure["traceback"])
    assert (paths.resolve(failure["executed"])).is_file()


@pytest.mark.notebook
def test_killed_kernel_is_no_success(root):
    failure = attempt(root, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert "died" in failure["reason"]


@pytest.mark.notebook
def test_leaving_early_is_no_success(root):
    """papermill itself exits 0 here."""
    failure = attempt(root, FINISH + "import sys\nsys.exit(0)\nrun.finish()")
    assert failure["reason"].startswith("it ended without a finished record")


@pytest.mark.notebook
def test_record_of_another_run_is_no_success(root):
    failure = attempt(root, FINISH + "import os\nos.environ['DRSTUDY_RUN_ID'] = 'another'\nrun.finish()")
    assert failure["reason"] == "its record is of another run"


@pytest.mark.notebook
def test_record_does_not_outlive_a_failure_after_it(root):
    failure = attempt(root, FINISH + "run.finish()\nraise ValueError('too late')")
    assert failure["reason"] == "ValueError: too late"


def test_record_of_other_parameters_is_run_again(own_folders):
    """After `drstudy run --parameter`, the profile's own result is not there, whatever the dates of files say."""
    stage = pipeline.stage("01", "smoke")
    record = {
        "status": "finished",
        "notebook": stage.notebook,
        "variant": "",
        "params": stage.parameters().upper(),
        "metrics": {},
    }
    records.write_json(record, stage.record)
    assert not pipeline._altered(stage)
    records.write_json(record | {"params": record["params"] | {"N_PATIENTS": 41}}, stage.record)
    assert pipeline._altered(stage)
    assert str(stage.record) in pipeline._snakemake("smoke", "core", "01", 1)


@pytest.mark.slow
def test_plan_of_snakemake(own_folders):
    """Nothing is there: all is to do; `until` leaves out what follows. The rules give every stage its command."""
    assert pipeline.pending("smoke") == [stage.name for stage in pipeline.plan("smoke")] + ["report"]
    assert pipeline.pending("smoke", "03") == ["01", "03 efficientnet_lite0-seed0", "03 densenet121-seed0"]
    with pytest.raises(KeyError, match="no notebook '11' in the study core; use --study all"):
        pipeline.pending("smoke", "11")
    assert pipeline.pending("smoke", "11", "all") == ["01", "03 efficientnet_lite0-seed0", "11"]
    with pytest.raises(KeyError, match=r"no notebook '99'\."):
        pipeline.pending("smoke", "99", "all")


def test_heatmaps_wait_for_the_other_seeds_of_their_backbone():
    stage = pipeline.stage("05", "paper", "vgg16-seed1")
    others = [f"results/paper/03_fine_tuning/vgg16-seed{seed}" for seed in (0, 2)]
    assert stage.overrides["OTHERS"] == others
    assert set(others) < set(stage.needs)
    assert pipeline.stage("05", "demo", "densenet121-seed0").overrides["OTHERS"] == []
