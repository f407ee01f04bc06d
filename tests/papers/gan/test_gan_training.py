"""Two optimisers through the loop: turns, moving average, resume, processes, transfer; divergence and collapse are named."""

from __future__ import annotations

import os
from pathlib import Path

import gan_toys
import numpy as np
import pandas as pd
import pytest
import torch
import toy_tasks

from drstudy.core import devices
from drstudy.papers.gan import augmentation, feed, networks, params, runs, tables, training, watching
from drstudy.training import loop

ROUNDING = 1e-5
"""Of losses in two processes, where sums are taken in another order; training changes them by 0.1 and more."""


def everything(task):
    """All that a task has after training, as bytes."""
    state = {f"{name}/{key}": t for name, m in task.modules.items() for key, t in m.state_dict().items()}
    return {key: tensor.contiguous().numpy().tobytes() for key, tensor in state.items()}


def fitted(folder=None, prepare=None, **changes):
    task = gan_toys.build(gan_toys.recipe(**changes))
    if prepare:
        prepare(task)
    return task, loop.fit(task, folder)


@pytest.mark.parametrize("loss", ["hinge", "cwgan_gp"])
def test_a_killed_run_goes_on_to_the_same_bytes(loss, tmp_path):
    expected, whole = fitted(loss=loss)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, lambda task: toy_tasks.stop_in(task.feed, 3, 1), loss=loss)
    torch.manual_seed(99)
    task, fit = fitted(tmp_path, loss=loss)
    assert fit.resumed_at == 2
    pd.testing.assert_frame_equal(fit.history, whole.history, check_exact=True)
    assert everything(task) == everything(expected)
    start = everything(gan_toys.build(gan_toys.recipe(loss=loss)))
    assert {key.split("/")[0] for key, value in everything(task).items() if value != start[key]} == {
        "generator",
        "critic",
        "average",
        "album",
    }


def test_the_generator_steps_once_for_so_many_steps_of_the_critic():
    _, fit = fitted(critic_steps=3, steps=2, epochs=2)
    assert len(fit.history) == 2 * 2 * 3
    stepped = fit.history["loss_generator"].notna().tolist()
    assert stepped == [False, False, True] * 4


def test_the_critic_has_no_gradient_while_the_generator_learns_and_learns_again_afterwards():
    task = gan_toys.build(gan_toys.recipe(frozen_blocks=0))
    learning = [q.requires_grad for q in task.critic.parameters()]
    task.start_epoch(1)
    task.train_mode()
    task.critic.zero_grad(set_to_none=True)
    before = [q.detach().clone() for q in task.critic.parameters()]
    task._generator_step(networks.one_hot(torch.tensor([0, 1, 2, 3])))
    assert all(q.grad is None for q in task.critic.parameters())
    assert all(torch.equal(q, old) for q, old in zip(task.critic.parameters(), before))
    assert [q.requires_grad for q in task.critic.parameters()] == learning == [True] * len(learning)


def test_the_moving_average_by_hand():
    """Step 1: the weight of the past is at most 2 / 11; later the wanted one. Statistics move along, counts are copied."""
    task = gan_toys.build(gan_toys.recipe(average=0.5, critic_steps=1))
    weight, mean = "last.weight", "norm.norm.running_mean"
    start = {name: task.average.state_dict()[name].clone() for name in (weight, mean)}
    for tensor in task.generator.state_dict().values():
        tensor.add_(1)
    task.taken = 1
    task._follow()
    for name in (weight, mean):
        assert torch.allclose(task.average.state_dict()[name], start[name] + 1 - 2 / 11, atol=1e-6)
    assert task.average.norm.norm.num_batches_tracked == 1
    task.taken = 1000
    task._follow()
    for name in (weight, mean):
        assert torch.allclose(task.average.state_dict()[name], start[name] + 1 - 1 / 11, atol=1e-6)


def test_mirrored_views_and_the_scale_of_photographs():
    p = gan_toys.recipe()
    photographs = feed.Photographs(toy_tasks.eyes(), p, devices.setup("cpu", "fp32", 1, 0))
    plain, mirrored = (
        next(photographs.draws(torch.arange(4), torch.full((4,), view))).inputs for view in (0, 1)
    )
    assert torch.equal(plain.flip(3), mirrored)
    assert not torch.equal(plain, mirrored)
    assert plain.shape == (4, 3, 16, 16)
    assert plain.min() >= -1
    assert plain.max() <= 1
    back = feed.unscaled(plain)
    assert torch.equal(back, photographs.small[:4]), "no grey value is lost on the way"
    assert torch.allclose(photographs.mean, photographs.mean.flip(2), atol=1e-6)


def sided(right):
    """The toys with a side each."""
    data = toy_tasks.eyes()
    values = pd.DataFrame({"image_id": data.table["image_id"], feed.RIGHT: right})
    return data.with_targets(values)


def test_right_eyes_are_mirrored_in_training_and_validation():
    right = np.array([1.0, 0.0, np.nan] * 11)
    data, compute = sided(right), devices.setup("cpu", "fp32", 1, 0)
    left, both = (
        feed.Photographs(data, gan_toys.recipe(sides=sides, views=views), compute)
        for sides, views in (("left", 1), ("both", 2))
    )
    assert torch.equal(left.small[0], both.small[0].flip(2))
    assert torch.equal(left.small[1:3], both.small[1:3]), "left, and unknown"
    pairs = [torch.cat(list(one.unaugmented(np.arange(13)))) for one in (left, both)]  # rows 20 to 32
    for turned, plain, side in zip(*pairs, right[20:]):
        assert torch.equal(turned, plain.flip(2) if side == 1 else plain)


def test_left_eyes_need_known_sides():
    for data in (toy_tasks.eyes(), sided(np.full(33, np.nan))):
        with pytest.raises(ValueError, match=r"which eye it shows\. Set SIDES to 'both'"):
            feed.Photographs(data, gan_toys.recipe(sides="left", views=1), devices.setup("cpu", "fp32", 1, 0))
    with pytest.raises(ValueError, match="VIEWS must be 1 with SIDES 'left'"):
        gan_toys.recipe(sides="left")


def test_half_of_the_pictures_of_left_eyes_are_mirrored_back():
    generator, _ = networks.build(networks.Shape(16, 2, 4), True, 0)
    grades = np.repeat(np.arange(5), 40)
    plain, turned = (runs.generate(generator, grades, 3, mirrored=mirrored) for mirrored in (False, True))
    back = [np.array_equal(a, b[:, ::-1]) for a, b in zip(plain, turned)]
    same = [np.array_equal(a, b) for a, b in zip(plain, turned)]
    assert np.all(np.array(back) | np.array(same))
    assert 0.35 < np.mean(back) < 0.65


def test_photographs_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match=r"SIZE is 128, but the photographs of AUDIT have 64 pixels"):
        gan_toys.build(gan_toys.recipe(input_size=128))


def test_pictures_are_kept_at_moments_of_the_training():
    assert training.moments(32) == [1, 2, 4, 8, 16, 32]
    assert training.moments(3) == [1, 2, 3]
    task, _ = fitted()
    pages = task.album.pages
    assert pages.shape == (3, 5, 2, 16, 16, 3)
    assert pages.dtype == torch.uint8
    last = runs.generate(task.average, np.repeat(np.arange(5), 2), 5)
    assert np.array_equal(pages[-1].flatten(0, 1).numpy(), last), (
        "the last page shows the network that is kept"
    )
    assert not torch.equal(pages[0], pages[-1])


def test_generated_pictures_follow_from_seed_place_and_grade():
    generator, _ = networks.build(networks.Shape(16, 2, 4), True, 0)
    for block in generator.blocks:
        torch.nn.init.normal_(block.norms[0].moves.weight)
    grades = np.array([0, 1, 2, 3])
    first = runs.generate(generator, grades, 1)
    assert first.shape == (4, 16, 16, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, runs.generate(generator, grades, 1, batch_size=2))
    assert np.array_equal(first[:2], runs.generate(generator, grades[:2], 1))
    assert not np.array_equal(first, runs.generate(generator, grades, 2))
    other = runs.generate(generator, np.array([4, 1, 2, 3]), 1)
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(first[1:], other[1:])
    for wrong in ([5], [-1], [0.5], [[0, 1]]):
        with pytest.raises(ValueError, match="whole numbers from 0 to 4"):
            runs.generate(generator, np.array(wrong), 1)


def test_between_grades_ends_at_the_grades_themselves():
    generator, _ = networks.build(networks.Shape(16, 2, 4), True, 0)
    for block in generator.blocks:
        torch.nn.init.normal_(block.norms[0].moves.weight)
    pictures, at = runs.between_grades(generator, 3, 7, steps=2)
    assert at.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert pictures.shape == (3, 9, 16, 16, 3)
    for grade in range(5):
        same = runs.generate(generator, np.full(3, grade), 7)
        assert np.array_equal(pictures[:, 2 * grade], same)


def test_a_generator_is_kept_and_found_again(tmp_path):
    generator, _ = networks.build(networks.Shape(16, 2, 4), True, 0)
    generator.start_from(torch.rand(3, 16, 16))
    runs.save(generator, tmp_path / "generator.safetensors")
    again = runs.load(tmp_path / "generator.safetensors")
    grades = np.arange(5)
    assert np.array_equal(runs.generate(generator, grades, 3), runs.generate(again, grades, 3))
    training.tensors.write(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"kind": "other"})
    with pytest.raises(ValueError, match="not a generator that this notebook wrote"):
        runs.load(tmp_path / "other.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    p = params.Gan(
        size=16,
        sides="both",
        width=2,
        latent=4,
        batch_size=4,
        steps=2,
        pretraining_epochs=1,
        epochs=1,
        rival_epochs=1,
        threads=1,
    )
    folder = tmp_path_factory.mktemp("gan")
    return p, folder, runs.train_all(p, toy_tasks.eyes(), devices.setup("cpu", "fp32", 1, 0), folder)


def test_all_gans_are_trained_and_differ_as_they_should(trained):
    p, folder, found = trained
    assert (
        tuple(found)
        == p.trainings()
        == ("pretraining", "transfer", "frozen layers", "no transfer", "other loss")
    )
    assert [one.recipe.loss for one in found.values()] == ["hinge"] * 4 + ["cwgan_gp"]
    assert [one.recipe.grades for one in found.values()] == [0, 5, 5, 5, 5]
    assert [bool(one.recipe.start) for one in found.values()] == [False, True, True, False, False]
    assert (folder / runs.START).is_file()
    assert found["transfer"].recipe.epochs == found["no transfer"].recipe.epochs, "the same steps"


def test_the_conditional_gan_starts_from_the_pretrained_average(trained):
    _, _folder, found = trained
    p = found["transfer"].recipe
    task = runs.build(p, toy_tasks.eyes(), devices.setup("cpu", "fp32", 1, 0))
    for name, tensor in found["pretraining"].generator.state_dict().items():
        assert torch.equal(task.generator.state_dict()[name], tensor)
        assert torch.equal(task.average.state_dict()[name], tensor)
    scratch = runs.build(found["no transfer"].recipe, toy_tasks.eyes(), devices.setup("cpu", "fp32", 1, 0))
    assert not torch.equal(scratch.generator.seed.weight, task.generator.seed.weight)


def test_frozen_layers_keep_the_pretrained_weights(trained):
    _, folder, found = trained
    start = training.tensors.read_tensors(folder / runs.START)
    p = found["frozen layers"].recipe
    task = runs.build(p, toy_tasks.eyes(), devices.setup("cpu", "fp32", 1, 0))
    loop.fit(task)
    name = "blocks.0.first.parametrizations.weight.original"
    assert torch.equal(task.critic.state_dict()[name], start[f"critic/{name}"])
    assert not torch.equal(task.critic.state_dict()["linear.bias"], start["critic/linear.bias"])


def test_frozen_layers_need_pretrained_ones():
    with pytest.raises(ValueError, match="FROZEN_BLOCKS above 0 would freeze random layers"):
        gan_toys.recipe(frozen_blocks=1)


def test_diversity_and_energy_by_hand():
    line = torch.tensor([[0.0], [1.0], [3.0]])
    assert watching.diversity(line) == pytest.approx((1 + 3 + 2) / 3)
    assert watching.diversity(line, torch.tensor([0, 0, 1])) == pytest.approx(1)
    assert np.isnan(watching.diversity(line, torch.tensor([0, 1, 2])))
    other = torch.tensor([[0.0], [2.0]])
    # across: 0 2 / 1 1 / 3 1, mean 8 / 6; within: 2 and 2
    assert watching.energy(line, other) == pytest.approx(2 * 8 / 6 - 2 - 2)
    one, same = torch.randn(2, 400, 3, generator=torch.Generator().manual_seed(0)).unbind()
    assert abs(watching.energy(one, same)) < 0.02 < watching.energy(one, same + 0.5)


def history(diversities):
    epochs = range(1, len(diversities) + 1)
    return pd.DataFrame({"epoch": epochs, "val_energy": 0.1, "val_diversity": diversities})


def test_a_collapse_is_named_with_its_epoch():
    health = watching.judge(history([0.05, 0.4, 0.6, 0.5, 0.2, 0.1, 0.1, 0.1]))
    assert health.status == "collapsed"
    assert "from epoch 5 of 8 on" in health.why
    assert "0.10" in health.why
    assert watching.judge(history([0.01, 0.1, 0.5, 0.6])).status == "sound", (
        "a generator begins with one picture"
    )
    assert "from epoch 2 of 4 on" in watching.judge(history([0.5, 0.1, 0.1, 0.1])).why


def test_a_generator_that_makes_one_picture_per_grade_is_found_to_have_collapsed():
    task = gan_toys.build(gan_toys.recipe(epochs=1))
    with torch.no_grad():
        task.average.seed.weight.zero_()
    torch.nn.init.normal_(task.average.norm.moves.weight)
    task.start_epoch(1)
    task.log.append({})
    assert task.validate()["diversity"] < 1e-6


def test_an_exploding_critic_is_stopped_and_named_and_the_last_epoch_kept():
    task = gan_toys.build(gan_toys.recipe(loss="cwgan_gp", critic_rate=1e-4, critic_steps=1))
    step, seen = task.step, []

    def blow_up(batch):
        seen.append(None)
        if len(seen) == 4:  # in epoch 2
            with torch.no_grad():
                task.critic.linear.bias.fill_(1e6)
        return step(batch)

    task.step = blow_up
    found = runs.train(task)
    assert found.health.status == "diverged"
    assert "after epoch 1 of 3" in found.health.why
    assert "beyond 1e+04" in found.health.why
    assert found.history["epoch"].tolist() == [1, 1, 2]
    assert np.isfinite(found.history["loss_critic"]).all()
    for tensor in found.generator.state_dict().values():
        assert tensor.isfinite().all()
    assert task.critic.linear.bias.item() < 1


def test_a_divergence_after_a_resume_is_named_as_without_one(tmp_path):
    """It diverges in epoch 2, and again when the same folder is used once more: the first call there finds the checkpoint of epoch 1."""

    def broken():
        task = gan_toys.build(gan_toys.recipe(loss="cwgan_gp", critic_rate=1e-4, critic_steps=1))
        step, begun = task.step, []

        def blow_up(batch):
            begun.append(None)
            if task.epoch == 2:
                with torch.no_grad():
                    task.critic.linear.bias.fill_(1e6)
            return step(batch)

        task.step = blow_up
        return task, runs.train(task, tmp_path), begun

    (_, first, begun), (task, again, begun_again) = broken(), broken()
    assert (len(begun), len(begun_again)) == (3, 1), "epoch 1 is not trained twice"
    assert again.health == first.health
    assert again.health.status == "diverged"
    assert "after epoch 1 of 3" in again.health.why
    for name, tensor in first.generator.state_dict().items():
        assert torch.equal(tensor, again.generator.state_dict()[name]), name
    assert np.array_equal(first.album, again.album)
    assert task.critic.linear.bias.item() < 1
    assert again.history["epoch"].tolist() == [1]
    both = tables.trainings({"transfer": first, "no transfer": again})
    for name in ("energy", "diversity", "status", "why"):
        assert both[name].iloc[0] == both[name].iloc[1], name
    assert tables.history({"transfer": first, "no transfer": again})["epoch"].tolist() == [1, 1]


def test_a_resumed_epoch_draws_the_same_numbers(tmp_path):
    """The extra measurement moves no random state."""
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, lambda task: toy_tasks.stop_in(task.feed, 2, 1))
    task = gan_toys.build(gan_toys.recipe())
    before, numpys = task.random.get_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.manual_seed(3)
    state = torch.get_rng_state()
    task.start_epoch(2)
    assert task.finished[0] == 1
    assert task.epoch == 2
    assert torch.equal(task.random.get_state(), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002


def test_pictures_that_are_no_numbers_are_a_divergence_and_no_collapse():
    task = gan_toys.build(gan_toys.recipe(critic_steps=1))
    validate = task.validate

    def spoilt():
        if task.epoch == 2:
            torch.nn.init.constant_(task.average.last.bias, float("nan"))
        return validate()

    task.validate = spoilt
    found = runs.train(task)
    assert found.health.status == "diverged"
    assert "after epoch 1 of 3" in found.health.why
    assert "energy distance to the validation photographs is nan" in found.health.why
    assert all(tensor.isfinite().all() for tensor in found.generator.state_dict().values())


def test_diversity_that_cannot_be_measured_is_no_collapse():
    table = history([np.nan, np.nan])
    health = watching.judge(table)
    assert health.status == "not measurable"
    assert "Give the validation split a larger share" in health.why


def one_validation_photograph_per_grade(count):
    data = toy_tasks.eyes()
    rows, table = data.part("validation"), data.table.copy()
    kept = rows.drop_duplicates("grade")["image_id"][:count]
    left_out = table["image_id"].isin(rows["image_id"]) & ~table["image_id"].isin(kept)
    table.loc[left_out, "split"] = "test"
    return type(data)(data.images, table, "few", data.targets)


def test_few_validation_photographs():
    p, compute = gan_toys.recipe(epochs=1), devices.setup("cpu", "fp32", 1, 0)
    found = runs.train(runs.build(p, one_validation_photograph_per_grade(3), compute))
    assert found.health.status == "not measurable"
    (row,) = tables.trainings({"transfer": found}).to_dict("records")
    assert row["status"] == "not measurable"
    assert np.isfinite(row["energy"])
    assert np.isnan(row["diversity"])
    with pytest.raises(ValueError, match="The validation split has 1 photographs"):
        runs.train(runs.build(p, one_validation_photograph_per_grade(1), compute))


def test_the_critic_sees_real_and_generated_pictures_with_different_draws_of_one_policy(monkeypatch):
    task = gan_toys.build(gan_toys.recipe(critic_steps=1, augmentation=("colour", "cutout")))
    seen, augment = [], augmentation.apply

    def spy(images, draw, policies):
        seen.append((images, draw.numbers, policies))
        return augment(images, draw, policies)

    monkeypatch.setattr(augmentation, "apply", spy)
    task.start_epoch(1)
    task.train_mode()
    batch = next(task.feed.draws(torch.arange(4), torch.zeros(4, dtype=torch.int64)))
    task.step(batch)
    real, fake, learning = seen
    assert torch.equal(real[0], batch.inputs)
    assert not real[0].requires_grad
    assert not fake[0].requires_grad
    assert learning[0].requires_grad, "the generator learns through the augmentation"
    assert {policies for _, _, policies in seen} == {("colour", "cutout")}
    for one, other in ((real, fake), (real, learning), (fake, learning)):
        assert one[1].shape == (4, 7)
        assert not torch.isclose(one[1], other[1]).any()


def test_the_loss_of_cwgan_gp_is_the_difference_and_the_weighted_penalty():
    task = gan_toys.build(gan_toys.recipe(loss="cwgan_gp", critic_steps=1, penalty=7.0))
    task.start_epoch(1)
    task.train_mode()
    found = task.step(next(task.feed.draws(torch.arange(4), torch.zeros(4, dtype=torch.int64))))
    assert found["penalty"] > 0.01
    expected = found["critic_fake"] - found["critic_real"] + task.p.penalty * found["penalty"]
    assert found["loss_critic"] == pytest.approx(expected, rel=1e-5)


def test_a_divergence_in_the_first_epoch_leaves_nothing_to_use():
    task = gan_toys.build(gan_toys.recipe())
    torch.nn.init.constant_(task.critic.linear.bias, float("nan"))
    with pytest.raises(RuntimeError, match="diverged before its first epoch had ended"):
        runs.train(task)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["hinge", "cwgan_gp"])
def test_two_processes_end_with_the_numbers_of_one(loss, own_folders, monkeypatch):
    folders = [str(Path(module.__file__).parent) for module in (gan_toys, toy_tasks)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]))
    given = {"loss": loss, "variant": "sgd", "batch_size": 6}
    _, alone = fitted(**given)
    task = gan_toys.build(gan_toys.recipe(**given, processes=2))
    found = runs.train(task, own_folders / "results" / "smoke" / "15_gan_oversampling")
    assert found.history.shape == alone.history.shape
    for name in found.history.columns[2:]:
        np.testing.assert_allclose(
            found.history[name], alone.history[name], atol=ROUNDING, rtol=ROUNDING, err_msg=name
        )
    assert not (task.p.folder / "checkpoints").exists(), "they are no part of the result"


def test_256_pixels_in_bf16_take_one_step_through_the_same_code():
    rng = np.random.default_rng(0)
    small = toy_tasks.eyes(6, 4, 2)
    images = rng.integers(0, 256, (len(small.images), 256, 256, 3), dtype=np.uint8)
    data = type(small)(images, small.table, "large", small.targets)
    p = gan_toys.recipe(
        input_size=256, width=2, batch_size=2, steps=1, epochs=1, critic_steps=1, precision="bf16"
    )
    for loss in ("hinge", "cwgan_gp"):
        recipe = p.model_copy(update={"loss": loss})
        task = runs.build(recipe, data, devices.setup("cpu", "bf16", 1, 0))
        before = task.generator.last.weight.detach().clone()
        fit = loop.fit(task)
        assert np.isfinite(fit.history[["loss_critic", "loss_generator"]]).all(axis=None)
        assert not torch.equal(task.generator.last.weight, before)
        assert task.generator.last.weight.dtype == torch.float32
