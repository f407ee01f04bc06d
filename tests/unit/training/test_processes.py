"""One training in two CPU processes, started by accelerate, ends with the numbers of one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from drstudy.core import devices, paths, records
from drstudy.data import dataset
from drstudy.models import nets, norms
from drstudy.papers.transfer import params
from drstudy.study import plan, run
from drstudy.training import features, grading, launch, loop, networks, prediction

ROUNDING = 1e-4
"""Of losses: sums over a batch of seven are taken in another order, which three epochs of Adam enlarge; measured: 4e-6."""


@pytest.mark.slow
def test_two_processes_end_with_the_numbers_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DRSTUDY_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("DRSTUDY_DATA", str(tmp_path / "data"))
    run.run(plan.stage("01", "smoke"), {"N_PATIENTS": 12, "WORKERS": 1})
    audit = records.load(paths.resolve("results/smoke/01_data_audit"))
    data, compute = dataset.load(audit), devices.setup("cpu", "fp32", 1, 0)
    fits, answers = [], []
    for processes in (1, 2):
        p = params.FineTuning(
            variant=f"in-{processes}",
            backbone="resnet18",  # its tail has batch norms, and no dropout, whose masks would differ
            weights="none",
            epochs=3,
            batch_size=7,
            input_size=64,
            device="cpu",
            threads=1,
            processes=processes,
        )
        net = networks.build(p, data, compute)
        store = features.open_features(net, data, p, compute)
        fits.append(loop.fit(grading.Grading(net, store, p, compute), p.folder))
        answers.append(prediction.table(net, store, "test", compute).set_index("image_id"))
        store.close(keep=False)
    one, two = (fit.history for fit in fits)
    assert (fits[0].resumed_at, fits[1].resumed_at) == (0, 3), "the second was trained elsewhere"
    assert len(one) == len(two)
    assert np.allclose(one["loss"], two["loss"], atol=ROUNDING)
    assert np.allclose(one["val_loss"].dropna(), two["val_loss"].dropna(), atol=10 * ROUNDING)
    assert one["val_qwk"].dropna().tolist() == two["val_qwk"].dropna().tolist()
    assert fits[0].best_epoch == fits[1].best_epoch
    columns = [f"p{grade}" for grade in range(5)]
    assert np.allclose(answers[0][columns], answers[1][columns], atol=ROUNDING)
    assert answers[0][columns].to_numpy().std(axis=0).max() > 100 * ROUNDING


@pytest.mark.parametrize("count", [13, 14, 15, 21, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_batches_are_dealt_out_whole(count, processes):
    parts = []
    for rank in range(processes):
        source = object.__new__(features.Features)
        source.p, source.share = params.FineTuning(batch_size=7), (rank, processes)
        parts.append(source._batches(count))
    assert len({len(part) for part in parts}) == 1, "every process takes every step"
    drawn = np.concatenate([np.concatenate(part) for part in parts])
    assert sorted(drawn) == list(range(count)), "none twice, none left out"
    for step in zip(*parts):
        sizes = [len(share) for share in step]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1 or count < processes


def test_processes_without_a_folder_to_meet_in_are_refused():
    p = params.FineTuning(processes=2)
    with pytest.raises(ValueError, match="PROCESSES above 1 is for a notebook whose parameters say"):
        launch.check(p, None)
    with pytest.raises(ValueError, match="PROCESSES above 1 is for a notebook whose parameters say"):
        launch.check(p, p.folder / "elsewhere")
    launch.check(p, p.folder)


def test_global_norms_are_ordinary_ones_for_a_process_alone(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1
    )
    try:
        net = nets.build("resnet18")
        net.freeze()
        other = nets.build("resnet18")
        other.freeze()
        norms.synchronise(other, cuda=False)
        h = torch.randn(5, 256, 4, 4, generator=torch.Generator().manual_seed(0))
        for one in (net, other):
            one.train()
            one.tail(h).square().sum().backward()
        assert sum(isinstance(m, norms.GlobalBatchNorm) for m in other.modules()) == 5
        for (name, a), (same, b) in zip(net.named_parameters(), other.named_parameters()):
            assert name == same
            if a.grad is not None:
                assert (a.grad - b.grad).abs().max() <= 1e-4 * a.grad.abs().max(), name
        for (name, a), (_, b) in zip(net.named_buffers(), other.named_buffers()):
            assert torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5), name
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "norm", [torch.nn.BatchNorm1d(3), torch.nn.BatchNorm2d(3)], ids=["of a vector", "alone"]
)
def test_norms_that_would_stay_those_of_one_process_are_refused(norm):
    net = norm if isinstance(norm, torch.nn.BatchNorm2d) else torch.nn.Sequential(torch.nn.Linear(3, 3), norm)
    with pytest.raises(ValueError, match="Several processes cannot train"):
        norms.synchronise(net, cuda=False)
