"""The command ``drstudy``: what the Makefile calls, and what a reader types."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from drstudy.core import paths, records
from drstudy.core.params import ParameterError
from drstudy.study import cluster as clusters
from drstudy.study import execute as snakemake
from drstudy.study import plan
from drstudy.study import run as runner

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A reproducible, interpretable study of deep learning for diabetic retinopathy. Research only, not for diagnosis.",
    epilog="Start with `drstudy reproduce`: it runs the whole study on synthetic eyes, on two CPU cores, without network.",
)
data = typer.Typer(no_args_is_help=True, help="Look at a data set, or prepare its images, before a study.")
app.add_typer(data, name="data")

SOURCES = "phantom, eyepacs, aptos, idrid, diaretdb1 or folder"
ProfileOption = Annotated[
    str, typer.Option(help="A folder of params/: demo, eyepacs_mini, idrid_mini, paper, smoke, or your own.")
]


@app.command()
def reproduce(
    profile: ProfileOption = "demo",
    cores: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stages that may run side by side; with --cluster, cores of a stage that uses a whole machine.",
            show_default=f"all; with --cluster {clusters.CORES}",
        ),
    ] = None,
    until: Annotated[str, typer.Option(help="Stop after this notebook, such as 03.")] = "",
    study: Annotated[
        str, typer.Option(help="core (notebooks 00 to 06), or all (the further papers' too).")
    ] = "core",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which stages would run, and why.")
    ] = False,
    cluster: Annotated[
        Path | None,
        typer.Option(
            envvar="DRSTUDY_CLUSTER",
            help="Hand the stages to a cluster: folder of a profile of Snakemake, such as cluster/slurm.",
        ),
    ] = None,
) -> None:
    """Run every notebook of a profile that is not finished yet, then its report.

    Results go to results/PROFILE (DRSTUDY_RESULTS moves it). Finished stages are kept, so running it again does nothing, and after a
    kill it goes on where it was; training resumes from its last epoch.
    """
    page = paths.show(paths.results() / profile / "report" / "index.html")
    typer.echo(f"{profile}: {plan.profile(profile).description}")
    with runner.alone(paths.results() / profile, f"drstudy reproduce --profile {profile}") as lock:
        todo = snakemake.pending(profile, until, study)
        if not todo:
            typer.echo("nothing to do: everything is finished" + ("" if until else f"; open {page}"))
            return
        typer.echo(f"to run: {', '.join(todo)}")
        if dry_run:
            typer.echo("\n".join(todo.values()))
            return
        began = time.monotonic()
        cores = cores or (clusters.CORES if cluster else os.cpu_count() or 1)
        try:
            failed = snakemake.execute(profile, cores, until, lock, study, cluster)
        except KeyboardInterrupt:
            typer.echo("stopped; finished stages are kept, and the same command goes on from here", err=True)
            raise typer.Exit(130) from None
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = f"{(time.monotonic() - began) / 60:.1f} minutes ({(used.ru_utime + used.ru_stime) / 60:.1f} core-minutes)"
    if failed:
        for name, reason in failed.items():
            typer.echo(f"failed: {name}: {reason}", err=True)
        typer.echo(
            f"{len(failed)} failed after {minutes}; the failure.json in its result folder has the traceback. "
            f"`drstudy report --profile {profile}` shows what is finished.",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"done in {minutes}" + ("" if until else f": open {page}"))
    verified = paths.results() / profile / "verify.json"
    if not until and verified.is_file():
        first, *further = json.loads(verified.read_text())["lines"]
        typer.echo("\n  ".join([f"reproduced: {first}", *further]))


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="Such as 03_fine_tuning, or its number.")],
    profile: ProfileOption = "demo",
    variant: Annotated[
        str, typer.Option(help="Backbone and seed where a notebook runs for several: densenet121-seed0.")
    ] = "",
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter (YAML value)."),
    ] = None,
) -> None:
    """Run one notebook of a profile, finished or not; the notebooks before it must be finished."""
    import yaml

    overrides = {}
    for text in parameter or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"--parameter takes NAME=VALUE, not {text!r}.")
        overrides[name] = yaml.safe_load(value)
    runner.run(plan.stage(notebook, profile, variant), overrides)


@app.command()
def report(profile: ProfileOption = "demo") -> None:
    """Write results/PROFILE/report/index.html and summary.json from the finished records; nothing is computed anew."""
    from drstudy.study import report as reports

    typer.echo(f"report: {paths.show(reports.write(profile))}")


@app.command()
def verify(
    profile: ProfileOption = "demo",
    against: Annotated[
        Path | None,
        typer.Option(help="Folder results/PROFILE of another run; default: the committed results."),
    ] = None,
) -> None:
    """Compare the results with the committed ones: every number, every verdict, time and memory.

    Exits with 1 if a number is outside its tolerance and its interval, or a verdict differs. results/PROFILE/verify.csv lists every number
    that is not identical.
    """
    from drstudy.study import verify as comparison

    if against is not None and not against.is_dir():
        raise FileNotFoundError(
            f"--against {against}: there is no such folder. It must be a results/PROFILE of another run."
        )
    found = comparison.write(profile, against)
    for line in found.lines():
        typer.echo(line)
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def reference(
    other: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=FOLDER", help="A run of the same profile under another setting, for the tolerances."
        ),
    ],
    held_out: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="The same, but only to test the tolerances."),
    ] = None,
    profile: ProfileOption = "demo",
) -> None:
    """Make the finished results the committed ones, reference/PROFILE, with tolerances from other runs (for maintainers)."""
    from drstudy.study import reference as committed

    runs: dict[str, dict[str, Path]] = {"--other": {}, "--held-out": {}}
    for option, texts in (("--other", other), ("--held-out", held_out or [])):
        for text in texts:
            name, equals, where = text.partition("=")
            if not equals or not Path(where).is_dir():
                raise ValueError(f"{option} takes NAME=FOLDER with a folder that exists, not {text!r}.")
            runs[option][name] = Path(where)
    typer.echo(paths.show(committed.write(profile, runs["--other"], runs["--held-out"])))


@app.command()
def figures(profile: ProfileOption = "demo") -> None:
    """Rewrite figures/ and the README's tables from finished records (for maintainers)."""
    from drstudy.study import figures as shown

    for path in shown.update(profile):
        typer.echo(paths.show(path))


@app.command()
def profiles() -> None:
    """List the profiles, and how far each is."""
    for name in plan.profiles():
        total, waiting = len(plan.plan(name)), len(plan.waiting(name))
        typer.echo(
            f"{name:14}{total - waiting:3} of {total} stages finished   {plan.profile(name).description}"
        )


@data.command("check")
def data_check(
    source: Annotated[str, typer.Argument(help=f"Layout: {SOURCES}.")],
    root: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    decode: Annotated[
        int, typer.Option(min=0, help="Images to decode in full, spread over the set; 0 is all of them.")
    ] = 200,
) -> None:
    """Say what is there and what is wrong, before anything is computed. Exits with 1 if no study can be run on it."""
    from drstudy.data import checking

    found = checking.check(source, root, decode=decode)
    typer.echo(found.text)
    raise typer.Exit(0 if found.ok else 1)


@data.command("prepare")
def data_prepare(
    source: Annotated[str, typer.Argument(help=f"Layout: {SOURCES}.")],
    root: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    image_size: Annotated[
        int, typer.Option(min=32, max=2048, help="Side of the field-of-view crops, pixels.")
    ] = 512,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
) -> None:
    """Write the image store that notebook 01 would write; after a kill it goes on where it was."""
    from drstudy.data import images, sources

    store = images.build(sources.load(source, root).manifest, image_size, workers)
    typer.echo(
        f"{len(store.index)} images of {image_size} px in {paths.show(store.folder)}; {len(store.problems)} remarks in its problems.csv"
    )


def main() -> None:
    """Entry point: errors that tell the user what to do are printed without a traceback."""
    try:
        app()
    except (
        ParameterError,
        KeyError,
        records.RecordError,
        runner.StageError,
        FileNotFoundError,
        ValueError,
        OSError,
    ) as error:
        if os.environ.get("DRSTUDY_TRACEBACK"):
            raise
        typer.echo(
            f"error: {error.args[0] if isinstance(error, KeyError) and error.args else error}", err=True
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
