"""A training step: our Trainer against a bare PyTorch loop, and byot against baseline. One thread, processes in turn.

The bare loop is what a person writes by hand who wants nothing but speed: no checks, no progress, no evaluation. It
starts from the same weights and gets the same batches and rates, and must end with the very same weights.

Our trainer has glibc keep what a step frees. The bare loop has its memory that way too, or the ratio would flatter us;
"own heap" is the same bare loop with glibc as it is.

Where a process has its memory decides some per cent, so each loop is started several times; intervals are over those.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from record import Record, against
from torch import Tensor, nn
from turns import Times, loops_in_turn, steps_of

from sdcompress import recipes
from sdcompress.benchmarking.stats import ratio_of_means, ratio_of_medians
from sdcompress.data.samples import ArraySamples, Dataset
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.models._trace import MacCounter
from sdcompress.models.backbones.cifar import cifar
from sdcompress.models.outputs import Outputs
from sdcompress.tasks.classification import Classification
from sdcompress.training.batches import permutation
from sdcompress.training.hardware import launch
from sdcompress.training.optimizer import build as build_optimizer
from sdcompress.training.trainer import StopRequest, Trainer

BATCH, CLASSES = 64, 10
ALIKE = ("resnet8", "wrn_16_1")  # every exit's feature is as wide as the last one, so that byot has no adapters
Loss = Callable[[Any, Tensor], Tensor]
MODALITY = Image.of(Preprocess(channels=3, resize=(32, 32), mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26)))
OURS, BARE, BYOT, BARE_BYOT = "baseline", "bare", "byot", "bare byot"
OWN_HEAP = "bare, own heap"


def samples(count: int) -> ArraySamples:
    chance = np.random.default_rng(0)
    return ArraySamples(chance.integers(0, 256, (count, 32, 32, 3), np.uint8), chance.integers(0, CLASSES, count))


def data(steps: int, batch: int = BATCH) -> Dataset:
    some, none = samples(batch * steps), samples(0)
    return Dataset("noise", some, none, none, Classification(tuple(map(str, range(CLASSES)))), MODALITY, "0" * 64)


def trainer(model: str, method: str, dataset: Dataset, out: Path, fabric: Fabric | None = None) -> Trainer:
    recipe = recipes.read(
        {
            "model": {"name": f"cifar:{model}"},
            "exits": {"count": 2, "head": "bottleneck", "width_cap": 64},
            "method": method,
            "train": {
                "epochs": 1,
                "batch_size": BATCH,
                "optimizer": {"lr": 0.01},
                "schedule": {"name": "constant"},
                "device": "cpu",
            },
        },
        (),
    )
    return Trainer(recipe, dataset, fabric or launch(recipe.train), out / method)


def plain(model: str, ours: Trainer) -> nn.Module:
    """The backbone as nobody wrapped it."""
    net = cifar(model, outputs=(CLASSES,), inputs=MODALITY.tensors, pretrained=False)
    net.load_state_dict(ours.net.backbone.state_dict())
    return net


def byot_by_hand(outputs: Outputs, labels: Tensor) -> Tensor:
    """The loss of byot with its defaults, for features of one width, in one expression for each exit."""
    *shallow, last = outputs.logits
    *features, deepest = outputs.features
    teacher, wanted = F.log_softmax(last.detach() / 3.0, 1), deepest.detach()
    loss = F.cross_entropy(last, labels)
    for logits, feature in zip(shallow, features, strict=True):
        student = F.log_softmax(logits / 3.0, 1)
        loss = loss + 0.9 * F.cross_entropy(logits, labels)
        loss = loss + 0.1 * 9.0 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        loss = loss + 0.066 * (((feature > 0) | (wanted > 0)) * (feature - wanted).square()).mean()
    return loss


class Bare:
    """Training by hand.

    Args:
        ours: its settings and its data.
        net: with the weights that ours starts with.
        loss: of what the network returns, and the labels.
    """

    def __init__(self, ours: Trainer, net: nn.Module, loss: Loss) -> None:
        self.net, self._loss = net, loss
        train = ours.dataset.train
        self._images, self._labels = train.examples(np.arange(len(train))), train.targets
        self._optimizer = build_optimizer(ours.recipe.train.optimizer, self.net.parameters())

    def run(self, on_step: Callable[..., None]) -> str:
        """Train to the end; ``on_step`` is called after each step. Returns the fingerprint of the weights."""
        mean = torch.tensor([255 * mean for mean in MODALITY.preprocess.mean]).view(1, -1, 1, 1)
        scale = torch.tensor([1 / (255 * std) for std in MODALITY.preprocess.std]).view(1, -1, 1, 1)
        order, total = permutation(len(self._labels), seed=0, epoch=0), torch.zeros(())
        for start in range(0, len(order), BATCH):
            index = order[start : start + BATCH]
            images = torch.from_numpy(self._images[index]).permute(0, 3, 1, 2)
            inputs = images.to(torch.float32, memory_format=torch.contiguous_format).sub_(mean).mul_(scale)
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self.net(inputs), torch.from_numpy(self._labels[index]))
            loss.backward()
            self._optimizer.step()
            total += loss.detach()
            on_step()
        return fingerprint(self.net)


def train(ours: Trainer, on_step: Callable[..., None]) -> tuple[str, int, int]:
    """Train to the end. Returns the fingerprint of the weights, and the MACs of a step: forward, and all."""
    ours.run(StopRequest(), on_step=on_step)
    return fingerprint(ours.net.backbone), macs(ours.net, backward=False), macs(ours.net, backward=True)


def fingerprint(net: nn.Module) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in net.state_dict().values())).hexdigest()


def macs(net: nn.Module, *, backward: bool) -> int:
    net = copy.deepcopy(net)
    with MacCounter() as counter, torch.set_grad_enabled(backward):
        logits = net(torch.zeros(BATCH, 3, 32, 32)).logits
        if backward:
            sum(exit_.sum() for exit_ in logits).backward()
    return counter.total


def measure(model: str, starts: int, rounds: int, steps: int, out: Path, *, alike: bool) -> dict[str, Any]:
    dataset = data(steps_of(rounds, steps))

    # each is built in its own process: torch's autograd does not survive a fork
    def make(method: str) -> Trainer:
        assert torch.get_num_threads() == 1
        return trainer(model, method, dataset, out)

    def bare(on_step: Callable[..., None]) -> str:
        ours = make(OURS)
        return Bare(ours, plain(model, ours), F.cross_entropy).run(on_step)

    def own_heap(on_step: Callable[..., None]) -> str:
        ours = trainer(model, OURS, dataset, out, Fabric(accelerator="cpu", devices=1))
        return Bare(ours, plain(model, ours), F.cross_entropy).run(on_step)

    def bare_byot(on_step: Callable[..., None]) -> str:
        ours = make(BYOT)
        assert len(set(ours.net.feature_sizes)) == 1, "byot has adapters here, which the loss by hand has not"
        return Bare(ours, ours.net, byot_by_hand).run(on_step)

    loops = {BARE: bare, OURS: lambda on_step: train(make(OURS), on_step)}
    loops |= {OWN_HEAP: own_heap, BYOT: lambda on_step: train(make(BYOT), on_step)}
    if alike:
        loops[BARE_BYOT] = bare_byot
    times: dict[str, list[Times]] = {name: [] for name in loops}
    for _ in range(starts):
        taken, ends = loops_in_turn(loops, rounds=rounds, steps=steps)
        assert ends[OURS][0] == ends[BARE], "not the same training"
        for name, found in taken.items():
            times[name].append(np.concatenate(found))
    extra = {back: ends[BYOT][1 + back] / ends[OURS][1 + back] for back in (False, True)}
    by_hand = against(ratio_of_medians(times[BYOT], times[BARE_BYOT]), 1.05) if alike else None
    return {
        "starts": starts,
        "rounds": rounds,
        "steps": steps,
        "median_step_ms": {name: round(float(np.median(np.concatenate(found))), 3) for name, found in times.items()},
        "trainer / bare loop": against(ratio_of_medians(times[OURS], times[BARE]), 1.05),
        "trainer / bare loop with its own heap": against(ratio_of_medians(times[OURS], times[OWN_HEAP]), None),
        "trainer / bare loop, means": against(ratio_of_means(times[OURS], times[BARE]), None),
        "byot MACs / baseline MACs, forward": round(extra[False], 4),
        "byot MACs / baseline MACs, forward and backward": round(extra[True], 4),
        "byot / baseline": against(ratio_of_medians(times[BYOT], times[OURS]), 1.10 * extra[False]),
        "byot / the same network and loss in a bare loop": by_hand,
    }


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    default = ["resnet8:8x8x4", "wrn_16_1:8x4x3", "resnet18:5x2x1"]
    read.add_argument("--models", nargs="+", default=default, metavar="NAME:STARTSxROUNDSxSTEPS")
    given = read.parse_args()
    torch.set_num_threads(1)
    record = Record()
    figures = {}
    for wanted in given.models:
        model, _, often = wanted.partition(":")
        starts, rounds, steps = map(int, often.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            figures[model] = measure(model, starts, rounds, steps, Path(folder), alike=model in ALIKE)
    record.write(figures, threads=1, batch=BATCH, image=[3, 32, 32])


if __name__ == "__main__":
    main()
