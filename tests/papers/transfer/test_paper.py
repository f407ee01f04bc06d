"""What is said about the papers' numbers, against the counts in docs/sources.md and against real layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from drstudy.models import heads
from drstudy.papers.transfer import arithmetic
from drstudy.papers.transfer import figures as paper_figures
from drstudy.papers.transfer import tables as paper_tables

COUNTS = paper_tables.PAPER_GRADE_COUNTS


def test_most_accurate_is_right_where_most_images_are():
    assert arithmetic.most_accurate(0.2, [0.5, 0.3, 0.1, 0.05, 0.05]) == pytest.approx(0.5)
    assert arithmetic.most_accurate(0.3, [0.1, 0.3, 0.5, 0.05, 0.05]) == pytest.approx(0.5 + 0.5 * 0.3)
    assert arithmetic.most_accurate(1.0, [0.2] * 5) == pytest.approx(1)
    random = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.1, 0.06, 0.04])
    for recalls in random.random((500, 5)):
        assert recalls @ shares <= arithmetic.most_accurate(recalls.mean(), shares) + 1e-12


def test_only_the_row_of_vgg16_excludes_means_over_the_grades():
    table = arithmetic.macro_reading(paper_tables.PAPER_TABLE2, COUNTS).set_index("backbone")
    assert table["possible"].to_dict() == {"resnet101": True, "vgg16": False, "densenet121": True}
    assert table.loc["vgg16", "most_accurate"] == pytest.approx(5 * 0.065 * 25810 / 35126)
    assert table.loc["vgg16", "if_one_vs_rest"] == pytest.approx((5 * 0.735 - 3) / 2)


def test_mean_one_vs_rest_accuracy_is_that_function_of_accuracy():
    """The formula behind if_one_vs_rest, against a confusion matrix: each error is wrong for two of the five
    grades."""
    counts = np.random.default_rng(0).integers(0, 20, (5, 5))
    from drstudy.evaluation import metrics

    found = metrics.from_confusion(counts)
    assert found["accuracy"] == pytest.approx((5 * found["accuracy_macro"] - 3) / 2)


def test_batches_an_epoch():
    assert arithmetic.batches_an_epoch(sum(COUNTS)) == 110


def test_head_of_linear_layers_collapses():
    torch.manual_seed(0)
    head = heads.make("paper", 1024).double()
    weight, bias = heads.collapsed(head)
    x = torch.rand(20, 1024, dtype=torch.float64)
    torch.testing.assert_close(x @ weight.T + bias, head(x), rtol=0, atol=1e-13)  # logits of about 0.1
    single = heads.make("single", 1024)
    assert torch.equal(heads.collapsed(single)[0], single.weight.double())
    with pytest.raises(ValueError, match="Only linear layers"):
        heads.collapsed(heads.make("mlp", 1024))


def test_figure_shows_each_row_with_its_range():
    printed = paper_tables.paper_arithmetic()
    ax = paper_figures.implied_prevalence(printed, COUNTS).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["ResNet101", "VGG16", "DenseNet121"]
    bars = [
        line.get_xdata()
        for line in ax.get_lines()
        if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"
    ]
    assert [tuple(bar) for bar in bars] == [(100 * row.lo, 100 * row.hi) for row in printed.itertuples()]
