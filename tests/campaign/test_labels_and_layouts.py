"""Label files, names, layouts, identities and masks of the campaign."""

from __future__ import annotations

import labels
import pytest
from cases import judge


@pytest.mark.parametrize("case", labels.cases(), ids=lambda case: case.label)
def test_input(case, tmp_path):
    judge(case, tmp_path)
