"""Distances of sets: hand values, the published formulas written out, and sets whose order is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from pictures_made import Blocks, eyes

from drstudy.core.devices import Compute
from drstudy.models import nets
from drstudy.papers.gan import encoders, pictures, quality
from drstudy.training import transforms


def clouds(n=12, m=9, width=6, shift=0.5, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, width)), random.normal(size=(m, width)) + shift


def test_kernel_distance_is_the_unbiased_mmd_of_a_cubic_kernel():
    first, second = clouds(9, 9)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    n = len(first)
    within = sum((kernel(x, x).sum() - np.trace(kernel(x, x))) / (n * (n - 1)) for x in (first, second))
    by_hand = within - 2 * kernel(first, second).mean()
    found = quality.distances(first, second, subset=n, subsets=1, seed=0)
    assert found["kd"] == pytest.approx(by_hand, rel=1e-10)


def with_moments(count, mean, deviations, seed):
    """Vectors whose sample mean and covariance are exactly these."""
    random = np.random.default_rng(seed)
    drawn = random.normal(size=(count, len(mean)))
    drawn -= drawn.mean(0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T
    return white * deviations + mean


def test_frechet_distance_of_normal_clouds():
    """|m1 - m2|^2 + sum (s1 - s2)^2 for independent coordinates: 9 + 16 + 1 + 4 + 0."""
    first = with_moments(30, np.array([0.0, 0, 0]), np.array([1.0, 2, 3]), 0)
    second = with_moments(25, np.array([3.0, 0, 4]), np.array([2.0, 4, 3]), 1)
    found = quality.distances(first, second, subset=20, subsets=1, seed=0)
    assert found["fd"] == pytest.approx(30, rel=1e-9)


def test_frechet_distance_with_fewer_pictures_than_features():
    """Two clouds on four of 40 axes: the rotation into their common space must change nothing."""
    first = np.pad(with_moments(9, np.zeros(4), np.array([1.0, 2, 3, 4]), 2), ((0, 0), (0, 36)))
    second = np.pad(with_moments(8, np.array([1.0, 0, 0, 0]), np.array([2.0, 2, 3, 1]), 3), ((0, 0), (0, 36)))
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(40, 40)))
    found = quality.distances(first @ turn, second @ turn, subset=8, subsets=1, seed=0)
    assert found["fd"] == pytest.approx(1 + 1 + 9, rel=1e-6)


def test_density_and_coverage_by_hand():
    """Reference 0, 1, 3 has balls of radius 1, 1, 2. The picture at 0.5 lies in the first two, that at 9 in none."""
    reference, made = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [9.0]])
    assert quality.density_coverage(made, reference, neighbours=1) == (
        pytest.approx(1.0),
        pytest.approx(2 / 3),
    )
    density, coverage = quality.density_coverage(reference, reference, neighbours=1)
    assert density == pytest.approx((2 + 3 + 1) / 3)  # balls around each: {0, 1}, {0, 1, 3}, {3}
    assert coverage == 1


def test_precision_and_recall_of_what_is_known():
    first, _ = clouds(20)
    same = quality.distances(first, first, subset=20, subsets=1, seed=0)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert same["fd"] == pytest.approx(0, abs=1e-5)
    far = quality.distances(first + 50, first, subset=20, subsets=1, seed=0)
    assert (far["precision"], far["recall"], far["density"], far["coverage"]) == (0, 0, 0, 0)
    half = np.concatenate(
        [first[:10], first[:10] + 50]
    )  # half of the set is real, and covers half of the reference
    assert quality.distances(half, first, subset=20, subsets=1, seed=0)["precision"] == 0.5


def test_nothing_is_printed_or_stored_elsewhere(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    quality.distances(*clouds(), subset=5, subsets=2, seed=0)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.rglob("*"))


@pytest.fixture(scope="module")
def found():
    train, reference = eyes(40, 0, "train"), eyes(40, 1, "test")
    random = np.random.default_rng(2)
    noise = random.integers(0, 255, (60, 16, 16, 3), dtype=np.uint8)
    made = {"noise": pictures.generated(noise, np.arange(60) % 5), "real": eyes(60, 3, "new")}
    sets = quality.sets(train, made, 0, most=30)
    return sets, quality.table(reference, sets, [Blocks()], quality.Setting(draws=2, subsets=3))


def test_the_table_has_a_floor_doses_and_generated_sets(found):
    sets, table = found
    kinds = [kind for kind, _, _ in sets.values()]
    assert kinds == [
        "floor",
        *["blurred"] * 3,
        *["noised"] * 3,
        *["grades mixed"] * 3,
        "generated",
        "generated",
    ]
    assert {len(some) for _, _, some in sets.values()} == {30}
    floor = sets[quality.FLOOR][2]
    for name in ("noise", "real"):
        assert sets[name][2].counts.tolist() == floor.counts.tolist()
    assert set(table["pictures"]) == {15}
    assert set(table["subset"]) == {7}
    assert len(table) == 12 * 6
    assert (table["lo"] <= table["value"]).all()
    values = table.set_index(["set", "metric"])["value"]
    assert values["noise", "recall_blocks"] == 0  # all its block means are near the middle
    assert values["real", "recall_blocks"] > 0.3


def test_mixed_grades_replace_ill_eyes_by_healthy_ones():
    train = eyes(50, 0)
    sets = quality.sets(train, {}, 0)
    _, dose, all_replaced = sets["100% of grades 2 to 4 replaced"]
    assert dose == 1
    assert all_replaced.counts.tolist() == [40, 10, 0, 0, 0]
    assert sets["50% of grades 2 to 4 replaced"][2].counts.tolist()[:2] == [25, 10]
    healthy = eyes(50, 0)
    healthy.grades[:] = 0
    assert not [name for name in quality.sets(healthy, {}, 0) if "replaced" in name]


def test_doses_in_order_are_recognised():
    doses = pd.DataFrame(
        {
            "metric": "kd_x",
            "measure": "kd",
            "kind": ["floor", *["blurred"] * 3, *["noised"] * 3, "generated"],
            "dose": [0.0, 1, 2, 3, 1, 2, 3, 0],
            "value": [0.1, 0.2, 0.3, 0.4, 0.3, 0.05, 0.2, 9],
        }
    )
    found = quality.responses(doses).set_index("kind")
    assert found.loc["blurred", "answers"] == "yes"
    assert found.loc["blurred", "rank_correlation"] == pytest.approx(1)
    assert found.loc["noised", "answers"] == "no"
    falling = quality.responses(doses.assign(measure="precision")).set_index("kind")
    assert falling.loc["blurred", "answers"] == "no"  # precision that rises with the dose does not answer


def test_bad_input_is_refused():
    first, second = clouds()
    with pytest.raises(ValueError, match="subset of the kernel distance has 10 pictures"):
        quality.distances(first, second, subset=10, subsets=1, seed=0)
    with pytest.raises(ValueError, match="A set has 5 pictures; more than 5 are needed"):
        quality.distances(first, second[:5], subset=2, subsets=1, seed=0)
    with pytest.raises(ValueError, match=r"their shapes are \(12, 6\) and \(9, 5\)"):
        quality.distances(first, second[:, :5], subset=2, subsets=1, seed=0)
    with pytest.raises(ValueError, match="A feature is not finite"):
        quality.distances(first * np.nan, second, subset=2, subsets=1, seed=0)
    train = eyes(20, 0)
    small = pictures.Pictures(train.images[:, :8, :8], train.grades, train.patients)
    with pytest.raises(ValueError, match="pictures of 8 pixels and the real photographs 16"):
        quality.sets(train, {"made": small}, 0)
    with pytest.raises(ValueError, match="pictures of grade 4 are needed, but the set has none"):
        quality.sets(train, {"made": train.take(train.grades < 4)}, 0)
    with pytest.raises(ValueError, match="cannot be named"):
        quality.sets(train, {quality.FLOOR: train}, 0)
    sets = quality.sets(train, {}, 0)
    with pytest.raises(ValueError, match="30 pictures are to be compared, but the smallest set has 20"):
        quality.table(train, sets, [Blocks()], quality.Setting(pictures=30))


def test_the_bundled_encoder_gives_the_pooled_layer():
    compute = Compute("cpu", "fp32")
    encoder = encoders.bundled(compute, 64)
    some = eyes(5, 0)
    found = encoder.features(some)
    assert found.shape == (5, 1280)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, encoder.features(some.images))
    assert encoder.net.weights_used == "bundled"
    plain = nets.build("efficientnet_lite0", weights="bundled").eval()
    with torch.no_grad():
        x = transforms.to_input(some.images, 64, plain.mean, plain.std)
        published = plain.net.extract_features(x).mean((2, 3))  # the package's own way
    np.testing.assert_allclose(found, published.numpy(), atol=1e-4)
    with pytest.raises(
        ValueError,
        match="lite0 looks at pictures of 100 pixels, but efficientnet_lite0 needs a multiple of 32",
    ):
        encoders.bundled(compute, 100)
