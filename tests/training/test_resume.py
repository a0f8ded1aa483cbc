"""Killed at any moment and started again, a run ends with the very bits of one that was never stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import sdcompress
from sdcompress import recipes
from sdcompress.checkpoint import newest, open_checkpoint, read_metrics
from sdcompress.errors import (
    CheckpointError,
    Interrupted,
    OutputExistsError,
    RecipeError,
    SdcompressError,
    UsageError,
)
from sdcompress.schema.recipe import Recipe
from sdcompress.storage import digest_of, sha256_of
from sdcompress.training.run import train
from sdcompress.training.trained_teacher import teacher_checkpoint
from sdcompress.training.warm_start import start_checkpoint

Small = Callable[..., Recipe]


class Killed(BaseException):
    """As hard a stop as one process can give itself: nothing of ours catches it."""


def kill_at(step: int) -> Callable[[int, int], None]:
    def on_step(done: int, _all: int) -> None:
        if done == step:
            raise Killed

    return on_step


CASES = {
    "byot, sgd": [],
    "adamw, ema, clipping": [
        "train.optimizer.name=adamw",
        "train.optimizer.lr=0.001",
        "train.ema_decay=0.9",
        "train.clip_grad=1",
    ],
    "mixing, cutout, label smoothing": [
        "train.augment.mixup=0.2",
        "train.augment.cutmix=1.0",
        "train.augment.cutout=4",
        "train.label_smoothing=0.1",
        "method=eed",
    ],
    "a memory of every sample": ["method=ps_kd"],
    "a memory of every class": ["method=sfr"],
    "threads that fetch ahead, channels last": ["train.workers=2", "train.channels_last=true"],
    "the last batch": ["method=dlb"],
    "a temperature": ["method=med"],
    "an average that teaches": ["method=ema_teacher", "train.ema_decay=0.9"],
    "a pyramid that teaches": ["method=frskd", "method.width=8"],
    "samples of the same class": ["method=cs_kd"],
    "dropout": ["method=r_drop", "model.options.dropout=0.5"],
    "mixtures of the step": ["method=mixskd"],
    "two augmentations": ["method=ddgsd"],
    "generations, averaged": ["method=born_again", "method.generations=2", "train.ema_decay=0.9"],
    "a frozen backbone": ["method=fastbert", "exits.head=bottleneck"],
    "labels of another method": ["method=eed+ps_kd"],
    "gradients of several batches": ["train.accumulate=4", "method=dlb"],
    "gradient equilibrium": ["exits.gradient_scaling=equilibrium"],
    "images on the device": ["train.data_on_device=true"],
    "bf16": ["train.precision=bf16-mixed", "exits.head=attention", "train.schedule.warmup_epochs=0.5"],
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
def test_resumed_run_is_bit_identical(small: Small, tmp_path: Path, settings: list[str]) -> None:
    recipe = small("train.checkpoint_steps=2", *settings)
    whole = train(recipe, tmp_path / "whole")
    # a checkpoint stands at step 6, the kill falls after step 7: a step is lost and done again
    with pytest.raises(Killed):
        train(recipe, tmp_path / "parts", on_step=kill_at(7))
    assert newest(tmp_path / "parts") == tmp_path / "parts" / "steps" / "00000006"
    resumed = train(recipe, tmp_path / "parts")
    assert resumed.state.step == whole.state.step == 10
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.state.training.sha256 == whole.state.training.sha256  # optimiser, memories, raw weights


@pytest.mark.parametrize("method", ["born_again", "fastbert"])
def test_a_stop_between_two_phases_begins_the_next_one_once(small: Small, tmp_path: Path, method: str) -> None:
    recipe = small(f"method={method}", *(["method.generations=2"] if method == "born_again" else []))
    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(Killed):
        train(recipe, tmp_path / "parts", on_step=kill_at(7))
    assert newest(tmp_path / "parts") == tmp_path / "parts" / "steps" / "00000005"  # the end of the first phase
    assert train(recipe, tmp_path / "parts").state.training.sha256 == whole.state.training.sha256


def test_metrics_have_each_epoch_once_after_a_resume(small: Small, tmp_path: Path) -> None:
    recipe = small("train.checkpoint_every=2", "train.epochs=3")
    with pytest.raises(Killed):
        train(recipe, tmp_path, on_step=kill_at(12))
    train(recipe, tmp_path)
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [1, 2, 3]


def test_an_epoch_that_was_stopped_reports_the_loss_of_all_its_steps(small: Small, tmp_path: Path) -> None:
    recipe = small("train.checkpoint_steps=1")
    train(recipe, tmp_path / "whole")
    with pytest.raises(Killed):
        train(recipe, tmp_path / "parts", on_step=kill_at(8))
    train(recipe, tmp_path / "parts")
    whole, parts = (read_metrics(tmp_path / name) for name in ("whole", "parts"))
    timed = {"seconds", "samples_per_second"}
    assert [line.items() - {(key, line[key]) for key in timed} for line in parts] == [
        line.items() - {(key, line[key]) for key in timed} for line in whole
    ]


def test_a_stop_at_the_end_of_an_epoch_keeps_its_metrics(small: Small, tmp_path: Path) -> None:
    def ask(done: int, _all: int) -> None:
        if done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(small(), tmp_path, on_step=ask)
    train(small(), tmp_path)
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 10]


def test_a_checkpoint_is_written_once(small: Small, tmp_path: Path) -> None:
    """Two reasons for a checkpoint at one step: the second must not take away the first."""
    folders = []

    def look(_line: dict[str, float]) -> None:
        folders.extend(path.name for path in (tmp_path / "steps").glob("[0-9]*"))

    train(small("train.checkpoint_steps=5", "train.epochs=1"), tmp_path, on_epoch=look)
    assert folders == []
    assert open_checkpoint(tmp_path).state.step == 5


def test_what_a_kill_leaves_behind_is_cleared(small: Small, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(small(), tmp_path, on_step=kill_at(7))
    (tmp_path / ".metrics.jsonl.0a1b2c3d.tmp").write_text("half")
    (tmp_path / ".recipe.yaml.0a1b2c3d.tmp").write_text("half")
    (tmp_path / "steps" / ".00000007.0a1b2c3d.tmp").mkdir()
    (tmp_path / "steps" / ".00000007.0a1b2c3d.tmp" / "weights.safetensors").write_text("half")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')
    assert train(small(), tmp_path).state.finished
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [1, 2]
    assert not [*tmp_path.rglob(".*.tmp")]


def test_a_finished_run_is_not_trained_again(small: Small, tmp_path: Path) -> None:
    first = train(small(), tmp_path)
    again = train(small(), tmp_path, on_step=kill_at(1))
    assert again == first


def test_another_recipe_is_refused_and_names_the_keys(small: Small, tmp_path: Path) -> None:
    train(small("train.epochs=1"), tmp_path)
    with pytest.raises(OutputExistsError, match=r"train\.optimizer\.lr: 0\.05 -> 0\.1") as caught:
        train(small("train.epochs=1", "train.optimizer.lr=0.1"), tmp_path)
    assert "--overwrite" in caught.value.next_step
    replaced = train(small("train.epochs=1", "train.optimizer.lr=0.1"), tmp_path, overwrite=True)
    assert replaced.recipe.train.optimizer.lr == 0.1


def test_a_folder_with_other_things_is_never_touched(small: Small, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"thesis\.tex"):
        train(small(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_only_the_newest_two_checkpoints_are_kept(small: Small, tmp_path: Path) -> None:
    train(small("train.checkpoint_steps=1"), tmp_path)
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["00000009", "00000010"]


@pytest.mark.parametrize("file", ["weights.safetensors", "training.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_helps(small: Small, tmp_path: Path, file: str) -> None:
    recipe = small("train.checkpoint_steps=5")
    with pytest.raises(Killed):
        train(recipe, tmp_path, on_step=kill_at(7))
    with pytest.raises(Killed):
        train(small("train.checkpoint_steps=5"), tmp_path, on_step=kill_at(8))
    broken = newest(tmp_path)
    assert broken is not None
    damaged = bytearray((broken / file).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (broken / file).write_bytes(damaged)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert str(broken) in caught.value.problem
    assert f"remove the folder {broken}" in caught.value.next_step


def test_a_truncated_checkpoint_is_refused(small: Small, tmp_path: Path) -> None:
    done = train(small("train.epochs=1"), tmp_path)
    weights = done.path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="bytes instead of"):
        open_checkpoint(tmp_path)


def test_a_state_that_was_edited_is_refused(small: Small, tmp_path: Path) -> None:
    done = train(small("train.epochs=1"), tmp_path)
    fields = json.loads((done.path / "state.json").read_text())
    fields["outputs"][0] = "nought"
    (done.path / "state.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="was edited"):
        open_checkpoint(tmp_path)


def resealed(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Edit the training tensors of a checkpoint as somebody who also knows how to seal it."""
    path = checkpoint / "training.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    seal(checkpoint)


def seal(checkpoint: Path) -> None:
    fields = json.loads((checkpoint / "state.json").read_text())
    for part in ("weights", "training"):
        path = checkpoint / f"{part}.safetensors"
        fields[part] |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    del fields["digest"]
    (checkpoint / "state.json").write_text(json.dumps({**fields, "digest": digest_of(fields)}))


SHORT = {
    "momentum": lambda tensors: tensors.update({"optimizer.0.momentum_buffer": torch.zeros(1)}),
    "dtype": lambda tensors: tensors.update(
        {"optimizer.0.momentum_buffer": tensors["optimizer.0.momentum_buffer"].half()}
    ),
    "index": lambda tensors: tensors.update({"optimizer.9999.momentum_buffer": torch.zeros(1)}),
    "name": lambda tensors: tensors.update({"optimizer.0.other": torch.zeros(1)}),
    "average": lambda tensors: tensors.update({"net.backbone.conv1.weight": torch.zeros(1)}),
    "one optimiser state": lambda tensors: tensors.pop("optimizer.0.momentum_buffer"),
    "missing": lambda tensors: tensors.pop("net.backbone.conv1.weight"),
}


@pytest.mark.parametrize("change", SHORT.values(), ids=SHORT.keys())
def test_tensors_that_do_not_fit_are_refused_before_a_kernel_reads_them(
    small: Small, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    recipe = small("train.ema_decay=0.9")
    with pytest.raises(Killed):
        train(recipe, tmp_path, on_step=kill_at(7))
    stopped = newest(tmp_path)
    assert stopped is not None
    assert "net.backbone.conv1.weight" in load_file(stopped / "training.safetensors")
    resealed(stopped, change)
    with pytest.raises(CheckpointError, match="not intact") as caught:
        train(recipe, tmp_path)
    assert f"remove the folder {stopped}" in caught.value.next_step


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02" + bytes(7) + b"{}", b"\x08" + bytes(7) + b'{"a":{}}'])
@pytest.mark.parametrize("part", ["weights", "training"])
def test_what_is_no_safetensors_file_is_refused(small: Small, tmp_path: Path, part: str, content: bytes) -> None:
    with pytest.raises(Killed):
        train(small(), tmp_path, on_step=kill_at(7))
    stopped = newest(tmp_path)
    assert stopped is not None
    (stopped / f"{part}.safetensors").write_bytes(content)
    seal(stopped)
    with pytest.raises(CheckpointError, match="not intact"):
        train(small(), tmp_path)


def test_what_a_user_puts_beside_the_checkpoints_is_his(small: Small, tmp_path: Path) -> None:
    recipe = small("train.checkpoint_steps=1")
    with pytest.raises(Killed):
        train(recipe, tmp_path, on_step=kill_at(4))
    copies = ["00000003.keep", "00000099.bak", "best", "7"]
    for name in copies:
        shutil.copytree(tmp_path / "steps" / "00000003", tmp_path / "steps" / name)
    train(recipe, tmp_path)
    assert {path.name for path in (tmp_path / "steps").iterdir()} == {*copies, "00000009", "00000010"}
    with pytest.raises(OutputExistsError, match=r"steps/00000003\.keep"):
        train(small("train.epochs=1"), tmp_path, overwrite=True)


HOLD = """
import sys, time
from pathlib import Path
from sdcompress.storage import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_trainings_in_one_folder_are_one_too_many(small: Small, tmp_path: Path) -> None:
    out = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(UsageError, match=rf"process {other.pid} on ") as caught:
        train(small(), out)
    assert "--out" in caught.value.next_step
    other.kill()  # the lock of a dead process is taken over
    other.wait()
    assert train(small("train.epochs=1"), out).state.finished
    assert not (out / ".lock").exists()


def test_no_checkpoint_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert "sdcompress train" in caught.value.next_step


def test_a_memory_and_mixed_images_are_refused_before_training(small: Small, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ps_kd"):
        train(small("method=ps_kd", "train.augment.mixup=0.2"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_goes_on(small: Small, tmp_path: Path, number: signal.Signals) -> None:
    recipe, out = small("train.epochs=3"), tmp_path / "run"

    def ask(done: int, _all: int) -> None:
        if done == 4:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as caught:
        train(recipe, out, on_step=ask)
    assert caught.value.exit_code == 130
    assert open_checkpoint(out).state.step == 4
    whole = train(recipe, tmp_path / "whole")
    assert train(recipe, out).weights_sha256 == whole.weights_sha256


def test_kill_minus_nine_in_another_process(small: Small, tmp_path: Path) -> None:
    settings = ["train.epochs=12", "train.evaluate_every=12"]
    # a checkpoint takes longer than a step: many of them keep the process busy until it is killed
    (tmp_path / "recipe.yaml").write_text(recipes.dump(small(*settings, "train.checkpoint_steps=1")))
    command = [sys.executable, "-m", "sdcompress", "train", "-c", str(tmp_path / "recipe.yaml"), "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, str(tmp_path / "parts")], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "parts" / "steps").glob("[0-9]*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    stopped = open_checkpoint(tmp_path / "parts").state.step
    assert 0 < stopped < 60
    recipe = small(*settings)
    assert train(recipe, tmp_path / "parts").weights_sha256 == train(recipe, tmp_path / "whole").weights_sha256


def test_a_checkpoint_of_another_version_is_not_called_broken(small: Small, tmp_path: Path) -> None:
    done = train(small("train.epochs=1"), tmp_path)
    fields = json.loads((done.path / "state.json").read_text())
    for version, step in ((3, "upgrade"), (1, "train it again")):
        (done.path / "state.json").write_text(json.dumps({**fields, "schema_version": version}))
        with pytest.raises(CheckpointError, match=f"schema version {version}") as caught:
            open_checkpoint(tmp_path)
        assert step in caught.value.next_step


def test_a_checkpoint_from_before_a_key_was_added_is_read(small: Small, tmp_path: Path) -> None:
    done = train(small("train.epochs=1"), tmp_path)
    fields = json.loads((done.path / "state.json").read_text())
    del fields["recipe"]["train"]["workers"], fields["digest"]
    (done.path / "state.json").write_text(json.dumps({**fields, "digest": digest_of(fields)}))
    assert open_checkpoint(tmp_path).recipe == done.recipe


def test_how_often_one_looks_may_change_on_resume(small: Small, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(small("train.checkpoint_steps=2"), tmp_path / "parts", on_step=kill_at(3))
    resumed = train(small("train.evaluate_every=2", "train.workers=1"), tmp_path / "parts")
    assert resumed.weights_sha256 == train(small(), tmp_path / "whole").weights_sha256


def test_an_artifact_is_named_as_such_wherever_a_checkpoint_is_needed(small: Small, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    (artifact / "manifest.json").touch()
    (artifact / "golden.npz").touch()
    weights = small(f"model.weights={artifact}")
    teacher = small("method=trained_teacher", f"method.teacher={artifact}")
    for refused in (
        lambda: sdcompress.train(extends=artifact, settings=["train.epochs=2"]),
        lambda: start_checkpoint(weights),
        lambda: teacher_checkpoint(teacher),
    ):
        with pytest.raises(CheckpointError, match="is an artifact") as caught:
            refused()
        assert "exported from" in caught.value.next_step
    (artifact / "golden.npz").unlink()  # a manifest.json alone may be that of a folder with weights
    assert start_checkpoint(weights) is None


def test_a_run_is_thrown_away_only_when_the_new_one_can_begin(small: Small, tmp_path: Path) -> None:
    old = tmp_path / "run" / "steps" / "00000005"
    old.mkdir(parents=True)
    (old / "weights.safetensors").write_bytes(b"of days")
    with pytest.raises(SdcompressError):
        train(small("data.name=imagefolder", f"data.dir={tmp_path / 'typo'}"), tmp_path / "run", overwrite=True)
    assert (old / "weights.safetensors").read_bytes() == b"of days"
    with pytest.raises(OutputExistsError, match="would be thrown away"):
        train(small(f"model.weights={old / 'weights.safetensors'}"), tmp_path / "run", overwrite=True)
    assert (old / "weights.safetensors").read_bytes() == b"of days"
