"""The command ``drstudy``, for the Makefile and for readers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from drstudy.core import paths, records, settings
from drstudy.core.params import ParameterError, identity_pattern
from drstudy.study import cluster as clusters
from drstudy.study import plan, remedies, welcome
from drstudy.study import run as runner

app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A reproducible, interpretable study of deep learning for diabetic retinopathy. Research only, not for diagnosis.",
    epilog="Any command with --debug shows the traceback of an error. Start with `drstudy reproduce`: it runs the whole study on synthetic eyes, on two CPU cores, without network.",
)
data = typer.Typer(no_args_is_help=True, help="Look at a data set, or prepare its images, before a study.")
app.add_typer(data, name="data")

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


@app.callback()
def start(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(welcome.text())


@app.command()
def reproduce(
    profile: ProfileOption = "demo",
    cores: Annotated[
        int | None, typer.Option(min=1, help=CORES, show_default=f"all; with --cluster {clusters.CORES}")
    ] = None,
    until: Annotated[str, typer.Option(help="Stop after this notebook, such as 03.")] = "",
    study: Annotated[
        str, typer.Option(help="core (notebooks 00 to 06), or all (those of the other papers too).")
    ] = "core",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the stages that would run, and why.")
    ] = False,
    cluster: Annotated[
        Path | None,
        typer.Option(
            envvar="DRSTUDY_CLUSTER",
            help="Run the stages on a cluster: folder of a Snakemake profile, such as cluster/slurm.",
        ),
    ] = None,
) -> None:
    """Run every notebook of a profile that is not finished yet, then its report.

    Results go to results/PROFILE (DRSTUDY_RESULTS moves it). Finished stages are kept, so running it again does nothing, and after a
    kill it goes on where it was; training resumes from its last epoch.
    """
    from drstudy.study import reproduce as reproducing

    def complain(line: str) -> None:
        typer.echo(line, err=True)

    raise typer.Exit(reproducing.reproduce(profile, cores, until, study, dry_run, cluster, complain))


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
    tables: Annotated[
        bool,
        typer.Option("--tables", help="Only write the tables of the pages again, from figures/ as it is."),
    ] = False,
) -> None:
    """Rewrite figures/ and the tables of README.md and docs/ from finished records (for maintainers)."""
    from drstudy.study import figures as shown

    if tables and only:
        raise ValueError("--tables reads no result; leave out --only.")
    if not tables:
        _check_results(profile)
    for path in shown.rewrite() if tables else shown.update(profile, only or ()):
        typer.echo(paths.show(path))


@app.command()
def costs(
    profile: ProfileOption = "demo",
    measured: Annotated[
        Path | None,
        typer.Option("--run", help="Folder results/PROFILE of the run; default: that of this clone."),
    ] = None,
) -> None:
    """Write reference/costs/PROFILE.json, from which the time of a run is estimated, from the records of a run (for maintainers)."""
    from drstudy.study import costs as committed

    if measured is not None and not measured.is_dir():
        raise FileNotFoundError(
            f"--run {measured}: there is no such folder. It must be a results/PROFILE of a run."
        )
    typer.echo(paths.show(committed.write(profile, measured)))


@app.command()
def lab() -> None:
    """Open the notebooks in JupyterLab, at their list of contents."""
    settings_folder = (
        Path(__file__).parent / "jupyterlab"
    )  # Markdown is shown as a page, nothing is asked of the network
    options = [f"--notebook-dir={paths.root()}", f"--LabApp.app_settings_dir={settings_folder}"]
    done = subprocess.run([sys.executable, "-m", "jupyterlab", *options, "notebooks/README.md"], check=False)
    raise typer.Exit(done.returncode)


@app.command()
def explain(
    images: Annotated[
        list[Path],
        typer.Argument(help="Photographs of the retina, or folders of them.", metavar="IMAGE..."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Result folder of a trained network, such as results/demo/03_fine_tuning/efficientnet_lite0-seed0, or a file of weights in it."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("explained"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Explain photographs of your own by a trained network: probabilities or a score, map, outlines and a page for each.

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
    """List the profiles, each with its number of finished stages."""
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
    """List what is in a data set and what is wrong with it, before anything is computed. Exits with 1 if no study can be run on it."""
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
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes; 0 is one per core.")] = 0,
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
    _speak_utf8()
    debug = "--debug" in sys.argv or bool(os.environ.get("DRSTUDY_TRACEBACK"))
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app()
    except Exception as error:
        if debug:
            raise
        typer.echo(f"error: {remedies.in_one_sentence(error)}", err=True)
        sys.exit(1)


def _speak_utf8() -> None:
    """Print and read UTF-8, here and in every process that this one starts, whatever the code page of the system (Windows)."""
    os.environ.setdefault("PYTHONUTF8", "1")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    main()
