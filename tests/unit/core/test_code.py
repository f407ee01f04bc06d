"""Digests of code and the imports that it follows: what runs counts, and prose does not."""

from __future__ import annotations

import pytest

from drstudy.core.code import closure, digest_of_text, imported

CODE = '''"""What this module does."""

import os

LIMIT = 3
"""What the limit is."""


class Thing:
    """A thing."""

    def double(self, x):
        """Twice the number."""
        return 2 * x  # a comment
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # a comment", ""),
        ("  # a comment", "  # another comment"),
        ("Twice the number.", "Two times the number."),
        ('        """Twice the number."""\n', ""),
        ('"""What the limit is."""\n', ""),
        ("2 * x", "(2 * x)"),
        ("(self, x)", "(\n        self,\n        x,\n    )"),
        ("import os", "import os\n\n\n"),
    ],
)
def test_prose_and_formatting_do_not_change_the_digest_of_a_module(old, new):
    changed = CODE.replace(old, new)
    assert changed != CODE
    assert digest_of_text(CODE) == digest_of_text(changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [("2 * x", "3 * x"), ("LIMIT = 3", "LIMIT = 4"), ("x)", "x=0)"), ("import os", "import sys")],
)
def test_code_does(old, new):
    assert digest_of_text(CODE) != digest_of_text(CODE.replace(old, new))


def test_a_function_that_is_only_a_docstring_has_a_digest():
    assert digest_of_text('def f():\n    """Nothing."""\n') == digest_of_text("def f():\n    pass\n")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import numpy", set()),
        ("from drstudy.core import paths", {"drstudy", "drstudy.core", "drstudy.core.paths"}),
        ("from drstudy.core.paths import root", {"drstudy", "drstudy.core", "drstudy.core.paths"}),
        ("def f():\n    import drstudy.core.paths", {"drstudy", "drstudy.core", "drstudy.core.paths"}),
        ("from . import paths", {"drstudy", "drstudy.core", "drstudy.core.paths"}),
        ("if TYPE_CHECKING:\n    from drstudy.core import paths\nelse:\n    import drstudy", {"drstudy"}),
    ],
)
def test_imports_are_followed_wherever_they_run(text, names):
    assert imported(text, "drstudy.core") == names


def test_the_closure_holds_what_is_imported_through_others():
    found = closure({"drstudy.core.records"})
    assert {"drstudy.core.records", "drstudy.core.paths", "drstudy.core.params", "drstudy"} <= found
    assert closure({"drstudy.no_such_module"}) == set()
