"""Share of a finished study that is not arithmetic: processes, imports, kernels.

The script reads the executed notebooks of a profile (run `make reproduce` first). Arithmetic is the time of the cells, except the cell that imports. The rest is
the start of the command with papermill (timed here, five times, as is the one import of the large libraries ahead of all stages), the start and the end of the kernel,
imports, and papermill's own work. `ours` is the time beside arithmetic and `other` is the whole time, summed over stages. The ratio is the whole time divided by
the time beside arithmetic. Stages that ran on another kind of processor than this one are left out. stages.py shows where the rest of the time goes.
"""

from __future__ import annotations

import subprocess
import sys

import nbformat
from side_by_side import alternate, options, report


def main() -> None:
    given = options(__doc__.splitlines()[0], repeats=(5, 5, "measurements of the start of a command"))
    from drstudy.core import devices, paths, records
    from drstudy.study import ahead, plan

    command = (
        "import sys, drstudy.study.cli, drstudy.study.kernels\ndrstudy.study.run.load_papermill()\n"
        "sys.exit('torch' in sys.modules)"
    )
    commands = {
        "import": [sys.executable, "-c", command],
        "ahead": [sys.executable, "-c", f"import {', '.join(ahead.LIBRARIES)}"],
        "python": [sys.executable, "-c", "pass"],
    }
    started, results = alternate(
        {
            name: lambda command=command: subprocess.run(command).returncode
            for name, command in commands.items()
        },
        given.repeats,
    )
    cells = imports = whole = 0.0
    stages = []
    for stage in plan.plan("demo"):
        executed = paths.resolve(stage.folder) / "executed.ipynb"
        if not stage.record.is_file() or not executed.is_file():
            continue
        if records.load(stage.folder).data["processor"] != devices.processor():
            continue
        notebook = nbformat.read(executed, 4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        seconds = {cell.id: cell.metadata["papermill"]["duration"] or 0.0 for cell in code}
        setup = next(cell.id for cell in code if ".check(globals())" in cell.source)
        imports += seconds[setup]
        cells += sum(seconds.values())
        whole += notebook.metadata["papermill"]["duration"] + started["import"]
        stages.append(stage.name)
    if not stages:
        print(
            "overhead: there is no finished stage of the profile demo that ran on this kind of processor; run make reproduce first",
            file=sys.stderr,
        )
        return
    whole += started["ahead"]
    beside = whole - (cells - imports)
    report(
        "overhead",
        beside,
        whole,
        f"s beside arithmetic, in {len(stages)} stages of demo",
        results["import"] == results["ahead"] == 0,
        share=beside / whole,
        imports_in_kernels=imports,
        kernels_and_papermill=whole - cells - started["import"] * len(stages) - started["ahead"],
        imports_ahead=started["ahead"],
        command_start=started["import"],
        bare_python_start=started["python"],
    )


if __name__ == "__main__":
    main()
