"""Results that were changed after their run are never used in silence, and reproduce makes them again."""

from __future__ import annotations

import pytest
import result_cases
from cases import judge


@pytest.mark.parametrize("case", result_cases.cases(), ids=lambda case: case.label)
def test_result(case, own_folders):
    judge(case, own_folders)


def test_a_damaged_store_is_written_again(own_folders):
    """`images.build`, and with it notebook 01, does not open what was damaged."""
    from photographs import encoded, folder_of, photograph

    from drstudy.data import images

    table = folder_of(own_folders / "set", {f"{n}.jpeg": encoded(photograph(n, 96)) for n in range(6)})
    whole = images.build(table, 64, 1)
    pixels = whole.images.copy()
    for damage in (
        result_cases.noise(same_time=False),
        result_cases.swapped,
        result_cases.cut,
        result_cases.of_store("store.json", b""),
    ):
        damage(None, whole.folder)
        again = images.build(table, 64, 1)
        assert (again.images == pixels).all()
        assert again.info == whole.info
