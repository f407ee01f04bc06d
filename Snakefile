# The study as a graph: one rule a notebook, backbones and seeds as wildcards, files as the only links between stages.
# `drstudy reproduce` calls this; by hand: snakemake --cores all --config profile=demo
# On a cluster, Snakemake's own executors take it as it is (for example --executor slurm).

import json
import os
import sys

from drstudy.core import paths
from drstudy.study import pipeline

profile = config.get("profile", "demo")
RESULTS = str(paths.results())
ROOT = paths.root()
os.environ["DRSTUDY_PYTHON"] = sys.executable  # by name, so that another interpreter's path is no reason to run again
RUN = '"$DRSTUDY_PYTHON" -m drstudy.study.cli run {params.stage} 2>&1'
CHOSEN = pipeline.plan(profile, config.get("study", "core"))


def stage(notebook, wildcards):
    return pipeline.stage(notebook, wildcards.profile, getattr(wildcards, "variant", ""))


def needs(notebook):
    """Records of the stages before it."""
    return lambda wildcards: [str(paths.resolve(folder) / "run.json") for folder in stage(notebook, wildcards).needs]


def command(notebook):
    """Arguments of `drstudy run`."""
    return lambda wildcards: stage(notebook, wildcards).arguments


def values(notebook):
    """Resolved parameters and text of the notebook: they make a stage run again; a YAML comment or saved outputs do not."""
    return lambda wildcards: json.dumps([stage(notebook, wildcards).parameters().upper(), pipeline.source_digest(notebook)])


wildcard_constraints:
    profile="[a-z0-9][a-z0-9_.-]*",
    variant="[A-Za-z0-9_.]+-seed[0-9]+(-[a-z0-9_]+)?",


rule all:
    input:
        f"{RESULTS}/{profile}/report/index.html",


rule paper_audit:
    input:
        needs("00_paper_audit"),
        map(str, pipeline.library("00_paper_audit")),
    output:
        RESULTS + "/{profile}/00_paper_audit/run.json",
    params:
        stage=command("00_paper_audit"),
        values=values("00_paper_audit"),
    shell:
        RUN


rule data_audit:
    input:
        needs("01_data_audit"),
        map(str, pipeline.library("01_data_audit")),
    output:
        RESULTS + "/{profile}/01_data_audit/run.json",
    params:
        stage=command("01_data_audit"),
        values=values("01_data_audit"),
    threads: workflow.cores
    shell:
        RUN


rule oversampling:
    input:
        needs("02_oversampling"),
        map(str, pipeline.library("02_oversampling")),
    output:
        RESULTS + "/{profile}/02_oversampling/run.json",
    params:
        stage=command("02_oversampling"),
        values=values("02_oversampling"),
    shell:
        RUN


rule fine_tuning:
    input:
        needs("03_fine_tuning"),
        map(str, pipeline.library("03_fine_tuning")),
    output:
        RESULTS + "/{profile}/03_fine_tuning/{variant}/run.json",
    params:
        stage=command("03_fine_tuning"),
        values=values("03_fine_tuning"),
    shell:
        RUN


rule backbone_comparison:
    input:
        needs("04_backbone_comparison"),
        map(str, pipeline.library("04_backbone_comparison")),
    output:
        RESULTS + "/{profile}/04_backbone_comparison/run.json",
    params:
        stage=command("04_backbone_comparison"),
        values=values("04_backbone_comparison"),
    shell:
        RUN


rule heatmap_analysis:
    input:
        needs("05_heatmap_analysis"),
        map(str, pipeline.library("05_heatmap_analysis")),
    output:
        RESULTS + "/{profile}/05_heatmap_analysis/{variant}/run.json",
    params:
        stage=command("05_heatmap_analysis"),
        values=values("05_heatmap_analysis"),
    shell:
        RUN


rule ram:
    input:
        needs("11_ram"),
        map(str, pipeline.library("11_ram")),
    output:
        RESULTS + "/{profile}/11_ram/run.json",
    params:
        stage=command("11_ram"),
        values=values("11_ram"),
    threads: workflow.cores
    shell:
        RUN


rule lesions:
    input:
        needs("12_lesions"),
        map(str, pipeline.library("12_lesions")),
    output:
        RESULTS + "/{profile}/12_lesions/run.json",
    params:
        stage=command("12_lesions"),
        values=values("12_lesions"),
    shell:
        RUN


rule reliability:
    input:
        needs("06_reliability"),
        map(str, pipeline.library("06_reliability")),
    output:
        RESULTS + "/{profile}/06_reliability/run.json",
    params:
        stage=command("06_reliability"),
        values=values("06_reliability"),
    shell:
        RUN


rule views:
    input:
        needs("21_views"),
        map(str, pipeline.library("21_views")),
    output:
        RESULTS + "/{profile}/21_views/run.json",
    params:
        stage=command("21_views"),
        values=values("21_views"),
    shell:
        RUN


rule report:
    input:
        [f"{paths.resolve(stage.folder)}/run.json" for stage in CHOSEN],
        [str(ROOT / "drstudy" / "study" / f"{name}.py") for name in ("checklists", "claims", "pairing", "report", "verify")],
        str(ROOT / "params" / "claims.yaml"),
        sorted(map(str, (ROOT / "drstudy" / "study" / "templates").iterdir())),
        sorted(str(path) for path in (ROOT / "reference" / profile).rglob("*") if path.is_file()),
    output:
        f"{RESULTS}/{profile}/report/index.html",
    shell:
        f'"$DRSTUDY_PYTHON" -m drstudy.study.cli report --profile {profile} 2>&1'
