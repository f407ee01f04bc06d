"""What `drstudy` prints without a command: the things that people do first, each with its exact command."""

from __future__ import annotations

FIRST = (
    ("Reproduce the study on synthetic eyes, without network and without a GPU", "drstudy reproduce"),
    ("Open the notebooks, where Run All works at once", "drstudy lab"),
    (
        "Run one notebook with another parameter",
        "drstudy run 03 --profile smoke --variant densenet121-seed0 -p EPOCHS=5",
    ),
    (
        "Check your own photographs (one folder per grade, or a table of labels)",
        "drstudy data check folder PATH",
    ),
    ("Compare your results with the committed ones", "drstudy verify"),
)
"""What a person wants, and the command."""


def text() -> str:
    """The page that is printed."""
    lines = [
        "drstudy: a reproducible, interpretable study of deep learning for diabetic retinopathy.",
        "Research only, not for diagnosis.",
        "",
        "What people do first:",
    ]
    for number, (wish, command) in enumerate(FIRST, start=1):
        lines += ["", f"  {number}. {wish}:", f"       {command}"]
    return "\n".join(
        [*lines, "", "`drstudy --help` lists all commands, `drstudy COMMAND --help` their options."]
    )
