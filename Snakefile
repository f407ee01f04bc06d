# The study as a graph: one rule a notebook, backbones and seeds as wildcards, files as the only links between stages.
# `drstudy reproduce` calls this; by hand: snakemake --cores all --config profile=demo
# On a cluster, Snakemake's own executors take it as it is (for example --executor slurm).

import sys

from drstudy import paths, pipeline

profile = config.get("profile", "demo")
RESULTS = str(paths.results())
ROOT = paths.root()
DRSTUDY = f'"{sys.executable}" -m drstudy.cli'
CHOSEN = pipeline.plan(profile)


def library(*rooms):
    """Source files a stage depends on: a change in one of them makes the stage run again."""
    files = [ROOT / "drstudy" / name for name in ("params.py", "records.py", "devices.py")]
    for room in rooms:
        path = ROOT / "drstudy" / room
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [str(path) for path in files]


DATA = ("data", "plots_audit")
MODEL = ("data", "models", "sampling", "transforms", "features", "training", "prediction")
NUMBERS = ("metrics", "statistics", "tables", "plots")


def needs(notebook):
    """What one run of a notebook reads: the notebook, its parameters, and the records of the stages before it."""

    def of(wildcards):
        stage = pipeline.stage(notebook, wildcards.profile, getattr(wildcards, "variant", ""))
        own = [str(ROOT / "notebooks" / f"{notebook}.ipynb"), *map(str, stage.files)]
        return own + [str(paths.resolve(folder) / "run.json") for folder in stage.needs]

    return of


wildcard_constraints:
    profile="[a-z0-9][a-z0-9_.-]*",
    variant="[A-Za-z0-9_.]+-seed[0-9]+",


rule all:
    input:
        f"{RESULTS}/{profile}/report/index.html",


rule data_audit:
    input:
        needs("01_data_audit"),
        library(*DATA),
    output:
        RESULTS + "/{profile}/01_data_audit/run.json",
    threads: workflow.cores
    shell:
        DRSTUDY + " run 01_data_audit --profile {wildcards.profile}"


rule oversampling:
    input:
        needs("02_oversampling"),
        library(*MODEL, *NUMBERS),
    output:
        RESULTS + "/{profile}/02_oversampling/run.json",
    shell:
        DRSTUDY + " run 02_oversampling --profile {wildcards.profile}"


rule fine_tuning:
    input:
        needs("03_fine_tuning"),
        library(*MODEL, *NUMBERS),
    output:
        RESULTS + "/{profile}/03_fine_tuning/{variant}/run.json",
    shell:
        DRSTUDY + " run 03_fine_tuning --profile {wildcards.profile} --variant {wildcards.variant}"


rule backbone_comparison:
    input:
        needs("04_backbone_comparison"),
        library(*NUMBERS),
    output:
        RESULTS + "/{profile}/04_backbone_comparison/run.json",
    shell:
        DRSTUDY + " run 04_backbone_comparison --profile {wildcards.profile}"


rule heatmap_analysis:
    input:
        needs("05_heatmap_analysis"),
        library("data", "models", "transforms", "prediction", "explain", "plots_heatmaps", *NUMBERS),
    output:
        RESULTS + "/{profile}/05_heatmap_analysis/{variant}/run.json",
    shell:
        DRSTUDY + " run 05_heatmap_analysis --profile {wildcards.profile} --variant {wildcards.variant}"


rule report:
    input:
        [f"{paths.resolve(stage.folder)}/run.json" for stage in CHOSEN],
        str(ROOT / "drstudy" / "report.py"),
        str(ROOT / "drstudy" / "templates" / "report.html"),
    output:
        f"{RESULTS}/{profile}/report/index.html",
    shell:
        DRSTUDY + f" report --profile {profile}"
