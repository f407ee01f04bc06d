"""The command ``drstudy``: what the Makefile calls, and what a reader types."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from drstudy.core import paths, records, settings
from drstudy.core.params import ParameterError, identity_pattern
from drstudy.study import cluster as clusters
from drstudy.study import execute as snakemake
from drstudy.study import plan
from drstudy.study import run as runner

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A reproducible, interpretable study of deep learning for diabetic retinopathy. Research only, not for diagnosis.",
    epilog="Any command with --debug shows the traceback of an error. Start with `drstudy reproduce`: it runs the whole study on synthetic eyes, on two CPU cores, without network.",
)
data = typer.Typer(no_args_is_help=True, help="Look at a data set, or prepare its images, before a study.")
app.add_typer(data, name="data")

ELSEWHERE = "Set DRSTUDY_DATA and DRSTUDY_RESULTS to folders on another disk"
REMEDIES = {
    errno.ENOSPC: f"Free some space and start it again, which goes on where it was. {ELSEWHERE} otherwise.",
    errno.EDQUOT: f"Your quota is used up: free some space and start it again. {ELSEWHERE} otherwise.",
    errno.EROFS: f"The disk is read-only. {ELSEWHERE}.",
    errno.EACCES: f"You may not write or read there. Change the permission. {ELSEWHERE} otherwise.",
    errno.EMFILE: "Too many files are open. Lower WORKERS, or raise the limit with `ulimit -n`.",
}
"""What to do about errors of the system, by their number."""

SOURCES = "phantom, eyepacs, aptos, idrid, diaretdb1, odir, folder or pooled"
CORES = "Stages that may run side by side; with --cluster, cores of a stage that uses a whole machine."
ProfileOption = Annotated[
    str, typer.Option(help="A folder of params/: demo, eyepacs_mini, idrid_mini, paper, smoke, or your own.")
]
PatternOption = Annotated[
    str,
    typer.Option(
        help="Regular expression with (?P<patient>...) for names of images, where they are unusual."
    ),
]
IgnoreOption = Annotated[
    list[str] | None, typer.Option(help="A file or folder of the data set to leave out; may be repeated.")
]
LostOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of the rows and files that may be left out.")
]


def _from_here(root: Path) -> Path:
    """A folder given on the command line: relative to the caller's folder, or as parameters write it if it is not there."""
    return root.resolve() if root.exists() else root


def _check_results(profile: str) -> None:
    """Refuse to speak of results that are not what their runs wrote."""
    for record in records.find(profile):
        record.check()


@app.command()
def reproduce(
    profile: ProfileOption = "demo",
    cores: Annotated[
        int | None, typer.Option(min=1, help=CORES, show_default=f"all; with --cluster {clusters.CORES}")
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
    if not until:
        _say_what_was_reproduced(profile)


def _say_what_was_reproduced(profile: str) -> None:
    """Print the comparison with the committed results, if the profile has any."""
    verified = paths.results() / profile / "verify.json"
    if verified.is_file():
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
    overrides = {}
    for text in parameter or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"--parameter takes NAME=VALUE, not {text!r}.")
        if name in ("PROFILE", "VARIANT"):
            raise ParameterError(f"{name} is set by --{name.lower()}, not by --parameter.")
        if name in overrides:
            raise ParameterError(f"--parameter {name} is given more than once.")
        overrides[name] = settings.parse(value, f"--parameter {name}")
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # stops like Ctrl-C: the failure is written down
    runner.run(plan.stage(notebook, profile, variant), overrides)


@app.command()
def report(profile: ProfileOption = "demo") -> None:
    """Write results/PROFILE/report/index.html and summary.json from the finished records; nothing is computed anew."""
    from drstudy.study import report as reports

    _check_results(profile)
    typer.echo(f"report: {paths.show(reports.write(profile))}")


@app.command()
def verify(
    profile: ProfileOption = "demo",
    against: Annotated[
        Path | None,
        typer.Option(help="Folder results/PROFILE of another run; default: the committed results."),
    ] = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Only compare every file of the results and every stored pixel with the digests of their run.",
        ),
    ] = False,
) -> None:
    """Compare the results with the committed ones: every number, every verdict, time and memory.

    Exits with 1 if a number is outside its tolerance and its interval, or a verdict differs. results/PROFILE/verify.csv lists every number
    that is not identical.
    """
    from drstudy.study import integrity
    from drstudy.study import verify as comparison

    if deep:
        lines = integrity.compare(profile)
        typer.echo("\n".join(lines) or "every file and every stored pixel is what its run wrote")
        raise typer.Exit(1 if lines else 0)
    if against is not None and not against.is_dir():
        raise FileNotFoundError(
            f"--against {against}: there is no such folder. It must be a results/PROFILE of another run."
        )
    _check_results(profile)
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
    _check_results(profile)
    typer.echo(paths.show(committed.write(profile, runs["--other"], runs["--held-out"])))


@app.command()
def figures(
    profile: ProfileOption = "demo",
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="A notebook whose files are rewritten, such as 14_glam; may be given again."
        ),
    ] = None,
) -> None:
    """Rewrite figures/ and the README's tables from finished records (for maintainers)."""
    from drstudy.study import figures as shown

    _check_results(profile)
    for path in shown.update(profile, only or ()):
        typer.echo(paths.show(path))


@app.command()
def explain(
    images: Annotated[
        list[Path],
        typer.Argument(help="Photographs of the retina, or folders of them.", metavar="IMAGE..."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Result folder of a finished fine-tuning, such as results/demo/03_fine_tuning/efficientnet_lite0-seed0."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the answers.")] = Path("explained"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Explain photographs of your own by a trained network: probabilities, map, outlines and a page for each.

    Research only, not a medical device. What is not a fundus photograph is refused with the reason; the others are explained, and the
    command exits with 1.
    """
    from drstudy.study import explaining, networks

    if model is None:
        raise networks.ModelError(
            f"--model is missing: the result folder of a trained network. {networks.how()}"
        )
    with _progress("explaining") as told:
        found = explaining.run(images, _from_here(model), output, device, told=told)
    for row in found.refused:
        typer.echo(f"refused: {row['file']}: {row['reason']}. {row['remarks']}", err=True)
    count = len(found.rows) - len(found.refused)
    typer.echo(
        f"{count} of {len(found.rows)} photographs explained (research only, not a medical device): open {output / 'index.html'}"
    )
    raise typer.Exit(1 if found.refused else 0)


@contextlib.contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int, dict[str, Any]], None]]:
    """A function that is told of each photograph: a bar in a terminal, a line each in a log."""
    if not sys.stderr.isatty():
        yield lambda done, total, row: typer.echo(f"{done}/{total} {row['name']}: {row['status']}", err=True)
        return
    with typer.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def told(done: int, total: int, row: dict[str, Any]) -> None:
            bar.length = total
            bar.update(1)

        yield told


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
    patient_pattern: PatternOption = "",
    ignore: IgnoreOption = None,
    most_lost: LostOption = 0.2,
) -> None:
    """Say what is there and what is wrong, before anything is computed. Exits with 1 if no study can be run on it."""
    from drstudy.data import checking

    pattern = identity_pattern(patient_pattern)
    found = checking.check(
        source,
        _from_here(root),
        decode=decode,
        pattern=pattern,
        ignored=ignore or [],
        most_lost=most_lost,
    )
    typer.echo(found.text)
    raise typer.Exit(0 if found.ok else 1)


@data.command("prepare")
def data_prepare(
    source: Annotated[str, typer.Argument(help=f"Layout: {SOURCES}.")],
    root: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    image_size: Annotated[
        int, typer.Option(min=32, max=2048, help="Side of the field-of-view crops, pixels.")
    ] = 512,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes; 0 is one a core.")] = 0,
    patient_pattern: PatternOption = "",
    ignore: IgnoreOption = None,
    most_lost: LostOption = 0.2,
) -> None:
    """Write the image store that notebook 01 would write; after a kill it goes on where it was."""
    from drstudy.data import audit, images, sources

    read = sources.load(source, _from_here(root), identity_pattern(patient_pattern), ignore or [], most_lost)
    store = images.build(read.manifest, image_size, workers)
    audit.quarantine(read, store)
    typer.echo(
        f"{len(store.index)} images of {image_size} px in {paths.show(store.folder)}; {len(store.problems)} remarks in its problems.csv"
    )


def main() -> None:
    """Entry point: errors that tell the user what to do are printed without a traceback."""
    debug = "--debug" in sys.argv or bool(os.environ.get("DRSTUDY_TRACEBACK"))
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app()
    except Exception as error:
        if debug:
            raise
        typer.echo(f"error: {in_one_sentence(error)}", err=True)
        sys.exit(1)


def in_one_sentence(error: Exception) -> str:
    """What an error means for a user: its own words where they are meant for users, else its kind, its first line and what to do."""
    if isinstance(error, KeyError):
        return str(error.args[0] if error.args else error)
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}. {REMEDIES[error.errno]}"
    if isinstance(error, MemoryError):
        return "There is not enough memory. Close other programs, or lower BATCH_SIZE, IMAGE_SIZE or WORKERS."
    if isinstance(error, ValueError | OSError) or type(error).__module__.startswith("drstudy"):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}. This was not foreseen; the same command with --debug shows where it happened."


if __name__ == "__main__":
    main()
