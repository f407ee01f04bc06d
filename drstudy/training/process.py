"""One of the processes that train a task together; :mod:`drstudy.training.launch` starts them."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator

from drstudy.training import loop


def main(arguments: list[str] | None = None) -> None:
    """One of the processes that ``accelerate launch -m drstudy.training.process`` starts."""
    parser = argparse.ArgumentParser(
        prog="accelerate launch -m drstudy.training.process", description=main.__doc__
    )
    parser.add_argument(
        "maker",
        metavar="MODULE:FUNCTION",
        help="makes the task from UPPER_CASE parameters and the accelerator",
    )
    parser.add_argument(
        "files", nargs="+", type=Path, help="parameter files of the notebook, later ones winning"
    )
    parser.add_argument(
        "-p", action="append", default=[], metavar="NAME=VALUE", help="a parameter (YAML value)"
    )
    given = parser.parse_args(arguments)
    parameters: dict[str, Any] = {}
    for file in given.files:
        parameters |= yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    parameters |= {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in given.p)}
    module, _, function = given.maker.partition(":")
    team = Accelerator(cpu=parameters.get("DEVICE") == "cpu" or not torch.cuda.is_available())
    task = getattr(importlib.import_module(module), function)(parameters, team)
    loop.fit(task, task.p.folder, team=team)
    team.end_training()


if __name__ == "__main__":
    main()
