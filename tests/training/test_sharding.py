"""Weights sharded over two processes: what each holds, what a checkpoint holds, and what is refused.

That they train as one process does stands in test_processes.py, beside DDP.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdcompress import recipes
from sdcompress.checkpoint import open_checkpoint, read_metrics
from sdcompress.errors import RecipeError
from sdcompress.schema.recipe import Recipe
from sdcompress.training.check_recipe import check_recipe
from sdcompress.training.run import train

Small = Callable[..., Recipe]
Torchrun = Callable[..., str]


class Stopped(Exception):
    """In a step, after a checkpoint."""


LEGS = """
import json, os, signal, sys
from pathlib import Path
from sdcompress import recipes
from sdcompress.errors import Interrupted
from sdcompress.training import save
from sdcompress.training.run import train

if os.environ["RANK"] == "1":
    save.staged_folder = None  # only the first process may write
for recipe, out, stop in json.loads(Path(sys.argv[1]).read_text()):
    def ask(done, _all):
        if done == stop and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGINT)
    try:
        train(recipes.read(recipe), Path(out), on_step=ask)
    except Interrupted:
        pass
"""


@pytest.mark.usefixtures("nets")
def test_a_run_goes_on_with_its_weights_shared_out_or_not(small: Small, torchrun: Torchrun, tmp_path: Path) -> None:
    # adapters of the method, an average, a momentum
    settings = ["method=eed", "model.name=nets:plain", "train.ema_decay=0.9", "train.checkpoint_steps=3"]
    two = [*settings, "train.processes=2"]
    made = {
        "one": small(*settings),
        "ddp": small(*two),
        "fsdp": small(*two, "train.strategy=fsdp"),
        "bf16": small(*two, "train.strategy=fsdp", "train.precision=bf16-mixed"),
    }
    for name, recipe in made.items():
        (tmp_path / f"{name}.yaml").write_text(recipes.dump(recipe))
    runs = tmp_path / "runs"

    def leg(recipe: str, run: str, stop: int = 0) -> tuple[str, str, int]:
        return str(tmp_path / f"{recipe}.yaml"), str(runs / run), stop

    def stop(done: int, _all: int) -> None:
        if done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        train(made["one"], runs / "one-fsdp", on_step=stop)
    legs = [
        *(leg("fsdp", "fsdp"), leg("bf16", "bf16"), leg("fsdp", "one-fsdp"), leg("fsdp", "fsdp-one", stop=3)),
        *(leg("fsdp", "fsdp-fsdp", stop=3), leg("fsdp", "fsdp-fsdp")),
        *(leg("fsdp", "fsdp-ddp", stop=3), leg("ddp", "fsdp-ddp")),
        *(leg("ddp", "ddp-fsdp", stop=3), leg("fsdp", "ddp-fsdp")),
    ]
    (tmp_path / "legs.json").write_text(json.dumps(legs))
    (tmp_path / "program.py").write_text(LEGS)
    torchrun(tmp_path / "program.py", tmp_path / "legs.json")
    assert open_checkpoint(runs / "fsdp-one").state.step == 3
    train(made["one"], runs / "fsdp-one")
    whole = train(made["one"], runs / "one").tensors()
    for run in ("fsdp", "fsdp-fsdp", "fsdp-ddp", "ddp-fsdp", "one-fsdp", "fsdp-one"):
        ended = open_checkpoint(runs / run)
        assert ended.state.finished
        for name, value in ended.tensors().items():
            torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-5, msg=f"{run}: {name}")
    # and to the bit, where it goes on as it began: weights, average, adapters, momentum
    straight, again = open_checkpoint(runs / "fsdp"), open_checkpoint(runs / "fsdp-fsdp")
    assert again.weights_sha256 == straight.weights_sha256
    assert again.state.training.sha256 == straight.state.training.sha256
    full, half = ([line["loss"] for line in read_metrics(runs / run)] for run in ("fsdp", "bf16"))
    assert half == pytest.approx(full, rel=1e-2)
    assert half != full


HELD = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from sdcompress import data, recipes
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.data.samples import ArraySamples
from sdcompress.training.hardware import launch
from sdcompress.training.sharding import full_value, local_value
from sdcompress.training.trainer import Trainer
from sdcompress.training import validation_scores
from sdcompress.training.validation_scores import exit_scores

validation_scores._BATCH = 1  # several passes

recipe = recipes.read(sys.argv[1])
fabric = launch(recipe.train)
dataset = data.load(recipe.data, seed=0, modality=recipe.modality)
trainer = Trainer(recipe, dataset, fabric, Path(sys.argv[2]))
learner, nets = trainer.learner, {}
three = np.arange(3)  # two for one process and one for the other
few = ArraySamples(dataset.val.examples(three), dataset.val.targets[three])
for epoch in range(2):
    learner.begin_epoch()
    for parts in trainer.batches.epoch(epoch):
        learner.learn(parts)
    for name, net in (("net", learner.net), ("ema", learner.eval_model), ("teacher", learner._teacher)):
        scores = exit_scores(net, few, dataset.task, dataset.modality, fabric=fabric)
        plain = learner._build(0)
        plain.load_state_dict({key: full_value(value) for key, value in net.state_dict().items()})
        inputs = torch.from_numpy(normalise(few.examples(three), dataset.modality.preprocess))
        right = few.targets == plain.eval()(inputs).logits[-1].argmax(1).numpy()
        images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(epoch))
        with torch.no_grad():
            mode, logits = net.training, net.eval()(images).logits
            net.train(mode)
            apart = max((a - b).abs().max().item() for a, b in zip(logits, plain(images).logits))
        held = [(local_value(value).numel(), value.numel()) for value in net.parameters()]
        nets[f"{name}{epoch}"] = dict(apart=apart, held=held, final=scores["final"], right=right.mean().item())
state = [value for values in learner.optimizer.state.values() for key, value in values.items() if key != "step"]
nets["optimizer"] = dict(held=[(local_value(value).numel(), value.numel()) for value in state])
(Path(sys.argv[2]) / str(fabric.global_rank)).write_text(json.dumps(nets))
"""


def test_each_process_holds_a_share_of_all_that_learns_and_computes_with_the_whole(
    small: Small, torchrun: Torchrun, tmp_path: Path
) -> None:
    settings = ["method=ema_teacher", "train.ema_decay=0.9", "train.optimizer.name=adamw", "train.optimizer.lr=0.001"]
    recipe = small(*settings, "train.processes=2", "train.strategy=fsdp")
    (tmp_path / "recipe.yaml").write_text(recipes.dump(recipe))
    (tmp_path / "program.py").write_text(HELD)
    torchrun(tmp_path / "program.py", tmp_path / "recipe.yaml", tmp_path)
    first, second = (json.loads((tmp_path / rank).read_text()) for rank in "01")
    assert set(first) == {"net0", "ema0", "teacher0", "net1", "ema1", "teacher1", "optimizer"}
    for name, here in first.items():
        there = second[name]
        for (mine, size), (theirs, _) in zip(here["held"], there["held"], strict=True):
            assert mine + theirs == size, name
        assert sum(mine for mine, _ in here["held"]) < 0.6 * sum(size for _, size in here["held"]), name
        if name != "optimizer":
            # also after a second look: weights that stay gathered after a forward pass would be those of the first
            assert max(here["apart"], there["apart"]) < 1e-5, name
            assert here["final"] == there["final"] == pytest.approx(here["right"]), name


@pytest.mark.parametrize(
    ("setting", "instead"),
    [
        ("train.compile=true", "train.compile=false"),
        ("train.channels_last=true", "train.channels_last=false"),
        ("train.precision=16-mixed", "train.precision=bf16-mixed"),
    ],
)
def test_what_does_not_go_with_shared_out_weights_is_refused_before_training(
    small: Small, tmp_path: Path, setting: str, instead: str
) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(RecipeError, match=rf"{key} is .* does not go with train\.strategy fsdp") as caught:
        train(small(setting, "train.processes=2", "train.strategy=fsdp"), tmp_path / "run")
    assert f"--set {instead}" in caught.value.next_step
    assert "--set train.strategy=ddp" in caught.value.next_step
    assert not (tmp_path / "run").exists()
    check_recipe(small(setting, "train.strategy=fsdp"))  # one process shares nothing out
    check_recipe(small(setting, "train.processes=2"))
