# The study as a graph: a rule for stages without a variant, one for stages with a variant (a backbone and a seed), and the report.
# The plan says which stages there are; result files are the only links between them.
# `drstudy reproduce` calls this; by hand: snakemake --cores all --config profile=demo
# On a cluster, Snakemake's own executors run it: `drstudy reproduce --cluster cluster/slurm` (docs/gpu.md).

import json
import os
import sys

from drstudy.core import paths
from drstudy.study import digests, plan

profile = str(config.get("profile", "demo"))
plan.profile_file(profile)  # refuses a name that no profile can have
workdir: str(paths.results())  # targets are relative to it, so that no path becomes part of a pattern


os.environ["DRSTUDY_PYTHON"] = sys.executable  # by name, so that another interpreter's path is no reason to run again
PYTHON = '"%DRSTUDY_PYTHON%"' if os.name == "nt" else '"$DRSTUDY_PYTHON"'  # Snakemake calls cmd.exe on Windows
RUN = f"{PYTHON} -m drstudy.study.cli run {{params.stage}} 2>&1"


def stage(wildcards):
    return plan.stage(wildcards.notebook, wildcards.profile, getattr(wildcards, "variant", ""))


def target(folder):
    """The record of a result folder, relative to the folder of results."""
    return f"{folder.removeprefix('results/')}/run.json"


def needs(wildcards):
    """Records of the stages before it."""
    return [target(folder) for folder in stage(wildcards).needs]


def command(wildcards):
    """Arguments of `drstudy run`."""
    return stage(wildcards).arguments


def values(wildcards):
    """Resolved parameters, and digests of the notebook's text and of the code that it imports: another value makes a stage run again.
    A comment in a file, saved outputs or the date of a file do not."""
    one = stage(wildcards)
    made_by = [digests.of_notebook(one.notebook), digests.library(one.notebook)]
    return json.dumps([one.parameters().upper(), *made_by])


def cores(wildcards):
    """All of them for a stage that uses the whole machine; on a cluster, which has no such number, as many as asked for."""
    if not stage(wildcards).whole_machine:
        return 1
    return int(config["cores"]) if "cores" in config else workflow.cores


def gpus(wildcards):
    """What a cluster gives the stage; without a cluster nothing counts it."""
    return stage(wildcards).gpus


wildcard_constraints:
    profile="[a-z0-9][a-z0-9_.-]*",
    notebook="[0-9][0-9]_[a-z0-9_]+",
    variant="[A-Za-z0-9][A-Za-z0-9_.-]*",


rule all:
    input:
        f"{profile}/report/index.html",


rule stage:
    input:
        needs,
    output:
        "{profile}/{notebook}/run.json",
    params:
        stage=command,
        values=values,
    threads: cores
    resources:
        gpu=gpus,
    shell:
        RUN


rule stage_of_variant:
    input:
        needs,
    output:
        "{profile}/{notebook}/{variant}/run.json",
    params:
        stage=command,
        values=values,
    threads: cores
    resources:
        gpu=gpus,
    shell:
        RUN


rule report:
    input:
        [target(one.folder) for one in plan.plan(profile, config.get("study", "core"))],
    output:
        f"{profile}/report/index.html",
    params:
        values=json.dumps(digests.of_report(profile)),
    shell:
        f"{PYTHON} -m drstudy.study.cli report --profile {profile} 2>&1"
