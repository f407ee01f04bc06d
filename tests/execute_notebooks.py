"""The maintainers' command: execute every notebook with its defaults and write the outputs back, cleaned (`make notebooks`).

Results and data go to a temporary folder, so the committed outputs are those of a fresh start. What differs from run to
run without meaning anything is left out: timings, stderr, the interpreter's version. Nothing is written if a cell fails.
"""

from __future__ import annotations

import argparse
import base64
import copy
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
CELL_TIMEOUT = 600


def smaller_png(encoded: str) -> str:
    """The same picture with a palette of 256 colours, if that takes fewer bytes (base64 in, base64 out)."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG).save(
        buffer, "PNG", optimize=True
    )
    smaller = base64.b64encode(buffer.getvalue()).decode()
    return smaller if len(smaller) < len(encoded) else encoded


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without what changes from run to run: timings, stderr, versions of the kernel."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        )
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = smaller_png(data["image/png"])
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
    return notebook


def execute(path: Path) -> nbformat.NotebookNode:
    """Run one notebook in its own folder, in a fresh kernel of this interpreter."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=50"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    return clean(notebook)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "only", nargs="*", help="numbers of notebooks (default: all), run after those before them"
    )
    parser.add_argument("--check", action="store_true", help="execute, but leave the files as they are")
    chosen = parser.parse_args()
    files = [
        f
        for f in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
        if not chosen.only or f.name[:2] in chosen.only
    ]
    if not files:
        sys.exit(f"There is no notebook {' '.join(chosen.only)} in {NOTEBOOKS}.")
    with tempfile.TemporaryDirectory(prefix="drstudy-notebooks-") as folder:
        os.environ["DRSTUDY_RESULTS"] = f"{folder}/results"
        os.environ["DRSTUDY_DATA"] = f"{folder}/data"
        executed = {}
        for path in files:
            began = time.monotonic()
            executed[path] = execute(path)
            size = len(nbformat.writes(executed[path]).encode()) / 1000
            print(f"{path.name}: {time.monotonic() - began:.0f} s, {size:.0f} kB", flush=True)
    if not chosen.check:
        for path, notebook in executed.items():
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
