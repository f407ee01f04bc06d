"""The fundus phantom: rule, plan, photographs, masks and files."""

from __future__ import annotations

import numpy as np
import pytest

from drstudy.data.phantom import LESION_CODES, PhantomConfig, grade_from_lesions, plan, render


def test_same_bytes():
    config = PhantomConfig(n_patients=3, size=96)
    assert np.array_equal(render(config, 1).image, render(config, "p0000_right").image)


@pytest.mark.parametrize("index", range(12))
def test_image_masks_and_grade_agree(index):
    config = PhantomConfig(n_patients=6, size=128, seed=2)
    phantom = render(config, index)
    assert phantom.grade == plan(config)["grade"][index] == grade_from_lesions(phantom.lesions)
    for code in LESION_CODES:
        assert phantom.masks[code].any() == (phantom.lesions["code"] == code).any()
