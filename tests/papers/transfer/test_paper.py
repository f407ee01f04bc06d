"""What is said about the papers' numbers, against the counts of the specification and against real layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from drstudy.models import heads
from drstudy.papers.transfer import arithmetic as paper
from drstudy.show import figures, tables

COUNTS = tables.PAPER_GRADE_COUNTS


def test_most_accurate_is_right_where_most_images_are():
    assert paper.most_accurate(0.2, [0.5, 0.3, 0.1, 0.05, 0.05]) == pytest.approx(0.5)
    assert paper.most_accurate(0.3, [0.1, 0.3, 0.5, 0.05, 0.05]) == pytest.approx(0.5 + 0.5 * 0.3)
    assert paper.most_accurate(1.0, [0.2] * 5) == pytest.approx(1)
    random = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.1, 0.06, 0.04])
    for recalls in random.random((500, 5)):
        assert recalls @ shares <= paper.most_accurate(recalls.mean(), shares) + 1e-12


def test_only_the_row_of_vgg16_excludes_means_over_the_grades():
    table = paper.macro_reading(tables.PAPER_TABLE2, COUNTS).set_index("backbone")
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
    assert paper.batches_an_epoch(sum(COUNTS)) == 110


def test_ram_parameters_are_those_of_the_specification():
    """*spec* E3, which has them from the authors' code."""
    table = paper.ram_parameters()
    expected = pd.DataFrame(
        {
            "baseline net-5": (5_518_688, 4_259_968, 2_624_001, 12_402_657),
            "RAM net-5": (5_518_688, 4_210_048, 513, 9_729_249),
            "baseline net-4": (5_555_712, 4_285_408, 2_624_001, 12_465_121),
            "RAM net-4": (5_555_712, 4_285_408, 513, 9_841_633),
        },
        index=["weights", "untied_biases", "head", "total"],
    ).T
    pd.testing.assert_frame_equal(table[list(expected)], expected, check_names=False)
    assert table["agrees"].all()


@pytest.mark.parametrize("network", list(paper.RAM_NETWORKS))
def test_counts_equal_those_of_real_layers(network):
    """The convolutions built in torch (their own, tied, biases), run on an image; positions from the
    activations."""
    layers, pool, _ = paper.RAM_NETWORKS[network]
    found = paper.count_parameters(layers, 448, pool)
    x, weights, tied, untied = torch.zeros(1, 3, 448, 448), 0, 0, 0
    for layer in layers:
        if isinstance(layer, paper.Pool):
            x = nn.functional.max_pool2d(x, layer.kernel, layer.stride)
            continue
        pad = layer.kernel // 2 if layer.pad is None else layer.pad
        conv = nn.Conv2d(x.shape[1], layer.channels, layer.kernel, layer.stride, pad)
        x = conv(x).detach()
        weights, tied, untied = weights + conv.weight.numel(), tied + conv.bias.numel(), untied + x[0].numel()
    assert (found["weights"], found["tied_biases"], found["untied_biases"]) == (weights, tied, untied)
    assert found["last_map"] == x.shape[-1]
    if pool:
        wide = nn.functional.avg_pool2d(x, pool.kernel, pool.stride)[0].numel()
        dense = [nn.Linear(wide, 1024), nn.Linear(512, 1024), nn.Linear(512, 1)]
    else:
        dense = [nn.Linear(x.shape[1], 1)]
    assert found["head"] == sum(q.numel() for layer in dense for q in layer.parameters())


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
    arithmetic = tables.paper_arithmetic()
    ax = figures.implied_prevalence(arithmetic, COUNTS).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["ResNet101", "VGG16", "DenseNet121"]
    bars = [
        line.get_xdata()
        for line in ax.get_lines()
        if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"
    ]
    assert [tuple(bar) for bar in bars] == [(100 * row.lo, 100 * row.hi) for row in arithmetic.itertuples()]
