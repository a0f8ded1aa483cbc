"""The loop: what it optimises, what it refuses, what it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from PIL import Image

from sdcompress import data
from sdcompress.checkpoint import newest, open_checkpoint, read_metrics
from sdcompress.errors import (
    DataError,
    DeviceError,
    Interrupted,
    SetupError,
    StorageError,
    TrainingDivergedError,
    UsageError,
)
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.schema.recipe import Recipe
from sdcompress.training import save as saving
from sdcompress.training import validation_scores
from sdcompress.training.run import train
from sdcompress.training.trainer import StopRequest, Trainer
from sdcompress.training.validation_scores import exit_scores

Small = Callable[..., Recipe]


def fabric() -> Fabric:
    made = Fabric(accelerator="cpu", devices=1)
    made.launch()
    return made


def test_baseline_step_is_the_step_of_a_bare_loop(small: Small, tmp_path: Path) -> None:
    """One step of ours against torch written out: same loss, same weights."""
    recipe = small("method=baseline", "train.augment.crop=0", "train.optimizer.nesterov=false")
    dataset = data.load(recipe.data, seed=recipe.seed, modality=recipe.modality)
    trainer = Trainer(recipe, dataset, fabric(), tmp_path)
    twin = Trainer(recipe, dataset, fabric(), tmp_path).net
    (part,) = next(trainer.batches.epoch(0))
    terms = trainer.learner.learn([part])

    (examples,), (mean,), (std,) = (
        part.primary.inputs,
        dataset.modality.preprocess.mean,
        dataset.modality.preprocess.std,
    )
    images = (examples.permute(0, 3, 1, 2).float() / 255 - mean) / std
    loss = torch.nn.functional.cross_entropy(twin(images).logits[-1], part.primary.targets)
    assert terms["ce"].item() == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    with torch.no_grad():  # first SGD step: the momentum buffer is the gradient; matrices decay, vectors do not
        for parameter in twin.parameters():
            decay = 5e-4 if parameter.ndim > 1 else 0.0
            parameter.sub_(0.05 * (parameter.grad + decay * parameter))
    for ours, theirs in zip(trainer.net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_averaged_teacher_begins_as_the_network_itself(small: Small, tmp_path: Path) -> None:
    """With running statistics, which are 0 and 1 here, it would say something else of the same weights."""
    recipe = small("method=ema_teacher", "train.augment.crop=0")
    trainer = Trainer(recipe, data.load(recipe.data, seed=0, modality=recipe.modality), fabric(), tmp_path)
    trainer.learner.begin_epoch()
    (part,) = next(trainer.batches.epoch(0))
    (examples,) = part.primary.inputs
    images = examples.permute(0, 3, 1, 2).float() / 255
    teacher = trainer.learner.resumable_state().teacher
    assert teacher is not None
    assert torch.equal(teacher(images).logits[-1], trainer.net(images).logits[-1])


def test_training_learns_at_every_exit(small: Small, tmp_path: Path) -> None:
    train(small("train.epochs=8", "data.train_limit=600"), tmp_path)
    last = read_metrics(tmp_path)[-1]
    chance = 0.1
    assert last["val_accuracy/final"] > 5 * chance
    assert last["val_accuracy/exit1"] > 3 * chance
    assert last["loss"] == pytest.approx(sum(v for k, v in last.items() if k.startswith("loss/")))


def test_diverging_loss_stops_and_keeps_the_last_good_checkpoint(small: Small, tmp_path: Path) -> None:
    recipe = small("train.optimizer.lr=1e30", "train.schedule.warmup_epochs=1.9", "train.checkpoint_steps=1")
    with pytest.raises(TrainingDivergedError) as caught:
        train(recipe, tmp_path)
    kept = newest(tmp_path)
    if kept is not None:  # a good one may or may not have come before the first infinite loss
        assert str(kept) in caught.value.problem
    assert caught.value.exit_code == 6
    assert "train.optimizer.lr" in caught.value.next_step


def test_weights_that_are_not_finite_are_never_saved(small: Small, tmp_path: Path) -> None:
    """The loss of the step was finite; the weights after it are not."""
    recipe = small("method=baseline")
    trainer = Trainer(recipe, data.load(recipe.data, seed=0, modality=recipe.modality), fabric(), tmp_path)
    with torch.no_grad():
        next(trainer.net.parameters()).view(-1)[0] = float("inf")
    with pytest.raises(TrainingDivergedError, match="weights"):
        trainer._keep()
    assert newest(tmp_path) is None


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs Linux's device that is always full")
def test_a_full_disk_keeps_what_was_complete(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small("train.checkpoint_steps=3")
    staged, calls = saving.staged_folder, []

    @contextmanager
    def full_from_the_second_on(folder: Path) -> Iterator[Path]:
        with staged(folder) as staging:
            calls.append(folder)
            if len(calls) > 1:  # half of the checkpoint goes to a disk without space
                (staging / "training.safetensors").symlink_to("/dev/full")
            yield staging

    monkeypatch.setattr(saving, "staged_folder", full_from_the_second_on)
    with pytest.raises(StorageError, match="No space left"):
        train(recipe, tmp_path)
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["00000003"]
    monkeypatch.undo()
    assert train(recipe, tmp_path).state.finished


def test_a_checkpoint_can_be_read_by_whom_the_umask_says(small: Small, tmp_path: Path) -> None:
    done = train(small("train.epochs=1"), tmp_path)
    assert len({path.stat().st_mode for path in done.path.iterdir()}) == 1


@pytest.mark.usefixtures("nets")
def test_fp16_goes_on_with_its_loss_scale(small: Small, tmp_path: Path) -> None:
    """Fabric offers fp16 on GPUs alone; its own plugin does the same on a CPU."""

    def make() -> Fabric:
        half = MixedPrecision("16-mixed", device="cpu", scaler=torch.amp.GradScaler("cpu", growth_interval=3))
        made = Fabric(accelerator="cpu", devices=1, plugins=[half])
        made.launch()
        return made

    # half precision is slow on a CPU
    recipe = small("model.name=nets:plain", "data.train_limit=40", "train.batch_size=8")
    dataset = data.load(recipe.data, seed=recipe.seed, modality=recipe.modality)

    def stop(done: int, _all: int) -> None:
        request.asked = done == 4

    request = StopRequest()
    Trainer(recipe, dataset, make(), tmp_path / "whole").run(StopRequest())
    with pytest.raises(Interrupted):
        Trainer(recipe, dataset, make(), tmp_path / "parts").run(request, on_step=stop)
    start = open_checkpoint(tmp_path / "parts")
    assert start.state.scaler["scale"] == 2 * 2**16  # grown once, after 3 steps
    Trainer(recipe, dataset, make(), tmp_path / "parts", start).run(StopRequest())
    whole, resumed = open_checkpoint(tmp_path / "whole"), open_checkpoint(tmp_path / "parts")
    assert resumed.state.scaler == whole.state.scaler
    assert resumed.weights_sha256 == whole.weights_sha256


class Photos:
    """Two classes of 60 images, and a run on them that was killed after six steps."""

    def __init__(self, root: Path, small: Small) -> None:
        self.folder, self.run = root / "images", root / "run"
        generator = np.random.default_rng(0)
        for label in ("cat", "dog"):
            (self.folder / label).mkdir(parents=True)
            for i in range(60):
                pixels = generator.integers(0, 255, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(self.folder / label / f"{i}.png")
        self._small = small

    def recipe(self, *settings: str) -> Recipe:
        own = ("data.name=imagefolder", f"data.dir={self.folder}", "data.train_limit=null", "data.test_limit=null")
        return self._small(*own, "train.batch_size=16", "train.checkpoint_steps=1", *settings)

    def kill_at_six(self) -> None:
        def stop(done: int, _all: int) -> None:
            if done == 6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(self.recipe(), self.run, on_step=stop)


@pytest.fixture
def photos(tmp_path: Path, small: Small) -> Photos:
    return Photos(tmp_path, small)


def test_data_that_changed_is_refused_on_resume(photos: Photos) -> None:
    photos.kill_at_six()
    (photos.folder / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match=r"(?s)fingerprint.*data\.exclude=\["):
        train(photos.recipe(), photos.run)


@pytest.mark.parametrize("removed", [True, False])
def test_a_run_goes_on_without_a_file_that_is_named(photos: Photos, removed: bool) -> None:
    photos.kill_at_six()
    if removed:
        (photos.folder / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match="not the one that was trained on"):
        train(photos.recipe("data.exclude=[cat/0.png, dog/61.png]"), photos.run)  # 61.png never was there
    without = photos.recipe("data.exclude=[cat/0.png]")
    done = train(without, photos.run)
    assert done.state.finished
    assert done.recipe.data.exclude == ("cat/0.png",)
    # what was left out is so from now on, whether it is named again or not
    assert train(photos.recipe(), photos.run).path == done.path
    assert open_trained_model(done).dataset().fingerprint == done.data_fingerprint


def test_a_run_does_not_go_on_where_another_file_is_new_or_gone(photos: Photos) -> None:
    photos.kill_at_six()
    (photos.folder / "cat" / "0.png").unlink()
    (photos.folder / "cat" / "1.png").rename(photos.folder / "cat" / "61.png")
    with pytest.raises(DataError, match="not the one that was trained on"):
        train(photos.recipe("data.exclude=[cat/0.png]"), photos.run)


def test_broken_images_are_found_before_the_first_step(photos: Photos) -> None:
    whole = (photos.folder / "cat" / "3.png").read_bytes()
    (photos.folder / "cat" / "3.png").write_bytes(whole[: len(whole) // 2])
    (photos.folder / "dog" / "5.png").write_bytes(b"")
    steps, checked = [], []
    with pytest.raises(DataError, match=r"2 of 120 examples") as caught:
        train(photos.recipe(), photos.run, on_step=lambda *n: steps.append(n), on_check=lambda *n: checked.append(n))
    assert "cat/3.png" in str(caught.value)
    assert "dog/5.png" in caught.value.next_step
    assert not steps
    assert checked[-1] == (120, 120)
    assert checked == sorted(checked)
    train(photos.recipe("data.exclude=[cat/3.png, dog/5.png]", "train.epochs=1"), photos.run)


def test_evaluation_counts_each_image_once(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small()
    dataset = data.load(recipe.data, seed=recipe.seed, modality=recipe.modality)
    net = Trainer(recipe, dataset, fabric(), tmp_path).net
    whole = exit_scores(net, dataset.test, dataset.task, dataset.modality, fabric=fabric())
    monkeypatch.setattr(validation_scores, "_BATCH", 7)
    odd = exit_scores(net, dataset.test, dataset.task, dataset.modality, fabric=fabric())
    assert odd == whole
    images = torch.from_numpy(
        (
            dataset.test.examples(np.arange(len(dataset.test))).astype(np.float32) / 255
            - dataset.modality.preprocess.mean[0]
        )
        / dataset.modality.preprocess.std[0]
    ).permute(0, 3, 1, 2)
    with torch.no_grad():
        final = net.eval()(images).logits[-1].argmax(1).numpy()
    assert whole["final"] == pytest.approx((final == dataset.test.targets).mean())


def test_several_devices_without_torchrun_name_the_command(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train(small("train.processes=2"), tmp_path)
    assert "torchrun --nproc-per-node 2" in caught.value.next_step


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that the test needs to be missing")
def test_a_missing_gpu_is_said(small: Small, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="'cuda'"):
        train(small("train.device=cuda"), tmp_path)


def test_a_precision_that_would_be_replaced_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="16-mixed"):
        train(small("train.precision=16-mixed"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_compiled_network_gives_the_same_losses(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the real switch, with dynamo but without a C++ compiler."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: compiled(net, backend="aot_eager"))
    train(small("train.epochs=1"), tmp_path / "eager")
    train(small("train.epochs=1", "train.compile=true"), tmp_path / "compiled")
    eager, other = read_metrics(tmp_path / "eager")[0], read_metrics(tmp_path / "compiled")[0]
    assert other["loss"] == pytest.approx(eager["loss"], rel=1e-3)


@pytest.mark.usefixtures("nets")
def test_a_step_that_needs_too_much_memory_says_what_needs_less(small: Small, tmp_path: Path) -> None:
    settings = ["model.name=nets:Odd", "model.options={large: true}", "method=baseline", "train.epochs=1"]
    with pytest.raises(DeviceError, match=r"train\.batch_size 32 in 1 part") as ended:
        train(small(*settings), tmp_path / "run")
    assert "--set train.accumulate=2 " in str(ended.value)
    assert train(small(*settings, "train.accumulate=2"), tmp_path / "parts").state.finished
