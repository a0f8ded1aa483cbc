"""The same training by torchdistill's trainer and by ours: ResNet, crop and flip, batch 64. One thread, in turns.

``pip install --no-deps torchdistill`` first. Both train the same network on the same uint8 images with the same
optimiser. torchdistill is used as its examples do it: a torch Dataset with torchvision's transforms behind a
DataLoader, without worker processes because one thread is measured.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import Record, against
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import RandomSampler
from torchdistill.core.training import get_training_box
from torchvision import transforms
from training import BATCH, CLASSES, MODALITY, data
from turns import loops_in_turn, steps_of

from sdcompress import recipes
from sdcompress.benchmarking.stats import ratio_of_medians
from sdcompress.models.backbones.cifar import cifar
from sdcompress.training.hardware import launch
from sdcompress.training.trainer import StopRequest, Trainer

CROP = 4
OURS, THEIRS = "sdcompress", "torchdistill"


class Pictures(TorchDataset[Any]):
    """Images as torchvision's own data sets give them: Pillow, then transforms, one by one."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._images, self._labels = images, labels
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=CROP, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MODALITY.preprocess.mean, MODALITY.preprocess.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, dict[str, Any]]:
        return self._transform(Image.fromarray(self._images[index])), int(self._labels[index]), {}


def theirs(model: str, steps: int, on_step: Callable[..., None]) -> None:
    samples = data(steps).train
    pictures = Pictures(samples.examples(np.arange(len(samples))), samples.targets)
    cross_entropy = {
        "criterion": {"key": "CrossEntropyLoss", "kwargs": {}},
        "criterion_wrapper": {
            "key": "SimpleLossWrapper",
            "kwargs": {
                "input": {"is_from_teacher": False, "module_path": ".", "io": "output"},
                "target": {"uses_label": True},
            },
        },
        "weight": 1.0,
    }
    box = get_training_box(
        cifar(model, outputs=(CLASSES,), inputs=MODALITY.tensors, pretrained=False),
        {"train": pictures},
        {
            "num_epochs": 1,
            "train_data_loader": {
                "dataset_id": "train",
                "sampler": {"class_or_func": RandomSampler},
                "kwargs": {"batch_size": BATCH, "num_workers": 0, "drop_last": True},
                "requires_supp": False,
            },
            "model": {"forward_proc": "forward_batch_only"},
            "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"ce": cross_entropy}}},
            "optimizer": {
                "key": "SGD",
                "kwargs": {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
            },
        },
        torch.device("cpu"),
        None,
        False,
        1,
    )
    box.pre_epoch_process(epoch=0)
    for images, targets, _ in box.train_data_loader:
        box.pre_forward_process()
        loss = box.forward_process(images, targets, None)
        box.post_forward_process(loss)
        on_step()


def ours(model: str, steps: int, out: Path, on_step: Callable[..., None]) -> None:
    spec = recipes.read(
        {
            "model": {"name": f"cifar:{model}"},
            "method": "baseline",
            "train": {
                "epochs": 1,
                "batch_size": BATCH,
                "optimizer": {"lr": 0.01},
                "schedule": {"name": "constant"},
                "augment": {"crop": CROP, "flip": True},
                "device": "cpu",
            },
        }
    )
    Trainer(spec, data(steps), launch(spec.train), out).run(StopRequest(), on_step=on_step)


def measure(model: str, starts: int, rounds: int, steps: int, out: Path) -> dict[str, Any]:
    count = steps_of(rounds, steps)
    loops = {
        THEIRS: lambda on_step: theirs(model, count, on_step),
        OURS: lambda on_step: ours(model, count, out, on_step),
    }
    times: dict[str, list[np.ndarray]] = {name: [] for name in loops}
    for _ in range(starts):
        taken, _ = loops_in_turn(loops, rounds=rounds, steps=steps)
        for name, found in taken.items():
            times[name].append(np.concatenate(found))
    return {
        "starts": starts,
        "rounds": rounds,
        "steps": steps,
        "median_step_ms": {name: round(float(np.median(np.concatenate(found))), 2) for name, found in times.items()},
        "sdcompress / torchdistill": against(ratio_of_medians(times[OURS], times[THEIRS]), 1.0),
    }


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    default = ["resnet8:4x8x4", "resnet18:3x2x1"]
    read.add_argument("--models", nargs="+", default=default, metavar="NAME:STARTSxROUNDSxSTEPS")
    given = read.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    record, figures = Record(), dict[str, Any]()
    for wanted in given.models:
        model, _, often = wanted.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            figures[model] = measure(model, *map(int, often.split("x")), Path(folder))
    record.write(figures, threads=1, batch=BATCH, image=[3, 32, 32], torchdistill=version("torchdistill"))


if __name__ == "__main__":
    main()
