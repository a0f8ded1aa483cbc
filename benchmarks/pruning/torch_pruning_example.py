"""Torch-Pruning's own fine-tuning example on the networks of the table, beside what sdcompress made of them.

    python benchmarks/pruning/torch_pruning_example.py RUNS --data-dir data --out graphs

RUNS is that of compare.py. What the example does stands in ``reproduce/main.py`` of Torch-Pruning: global
pruning by L2 norms or by its group norms, in up to 400 steps until the MACs are halved; then cross-entropy by SGD at
0.01 with momentum 0.9, weight decay 5e-4, batches of 128, a tenth of the learning rate after 60 % and 80 % of the
epochs. It has 100 epochs; here also as many as the table's rows. Its crop and flip are those of the plan. The score is
that of the last epoch: the example keeps the best one by the test split. All networks then run in ONNX Runtime without
an engine, in turns.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "speed"), str(HERE.parent / "alternatives")]

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import torch  # noqa: E402
import torch_pruning as tp  # noqa: E402
from eight_bits import Call, by_onnxruntime, timed  # noqa: E402
from record import Record  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import sdcompress  # noqa: E402
from sdcompress.benchmarking.stats import ratio_of_means  # noqa: E402
from sdcompress.checkpoint import open_checkpoint  # noqa: E402
from sdcompress.data.samples import Samples  # noqa: E402
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model  # noqa: E402
from sdcompress.onnx_graph.macs import macs  # noqa: E402
from sdcompress.options import Options  # noqa: E402

MOST_STEPS, BATCH, CROP = 400, 128, 2
OURS = ("baseline", "baseline_pruned", "labels_pruned", "trained_teacher_pruned", "self_distillation_pruned")


class LastExit(nn.Module):
    """A trained network that returns the logits of its last exit."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.network = open_checkpoint(folder).network()

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, classes]."""
        return self.network(images).logits[-1]


def pruned(network: nn.Module, example: Tensor, norms: str) -> nn.Module:
    """Prune it to half of its MACs as the example does."""
    if norms == "l2":
        kind, importance = tp.pruner.MagnitudePruner, tp.importance.MagnitudeImportance(p=2)
    else:
        kind, importance = tp.pruner.GroupNormPruner, tp.importance.GroupMagnitudeImportance(p=2)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)]
    network.eval()
    pruner = kind(
        network,
        example,
        importance=importance,
        global_pruning=True,
        iterative_steps=MOST_STEPS,
        pruning_ratio=1.0,
        ignored_layers=last,
    )
    before, _ = tp.utils.count_ops_and_params(network, example)
    for _ in range(MOST_STEPS):
        pruner.step()
        if before / tp.utils.count_ops_and_params(network, example)[0] >= 2:
            return network
    raise SystemExit(f"{MOST_STEPS} steps of pruning leave more than half of the MACs.")


def fine_tune(network: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train it as the example does."""
    generator = torch.Generator().manual_seed(0)
    network.to(memory_format=torch.channels_last)  # faster on CPUs
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    milestones = [round(share * epochs) for share in (0.6, 0.8)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    for _ in range(epochs):
        network.train()
        order = torch.randperm(len(images), generator=generator)
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            batch = augmented(images[rows], generator).contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(network(batch), labels[rows])
            loss.backward()
            optimizer.step()
        schedule.step()
    network.eval()


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to CROP pixels, and mirror half of them."""
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (CROP,) * 4)
    shifts = torch.randint(0, 2 * CROP + 1, (len(images), 2), generator=generator).tolist()
    shifted = torch.stack(
        [image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, shifts, strict=True)]
    )
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], shifted.flip(-1), shifted)


def tensors(model: TrainedModel, samples: Samples) -> tuple[Tensor, Tensor]:
    """Return the images of a split as the network takes them, and their classes."""
    (images,) = model.opened.modality.collate(samples.examples(np.arange(len(samples)))).arrays.values()
    return torch.from_numpy(np.array(images)), torch.from_numpy(np.array(samples.targets)).long()


def export(network: nn.Module, example: Tensor, file: Path) -> Path:
    """Write the network of the example as an ONNX graph."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(network, (example,), str(file), input_names=["input"], output_names=["logits"], verbose=False)
    return file


def made_by_the_example(start: Path, splits: tuple[Tensor, Tensor], epochs: list[int], out: Path) -> dict[str, Path]:
    """Prune and fine-tune a network as the example does; return the graphs."""
    graphs = {}
    for norms in ("l2", "group_norm"):
        for count in epochs:
            torch.manual_seed(0)
            network = pruned(LastExit(start), splits[0][:1], norms)
            fine_tune(network, *splits, count)
            name = f"Torch-Pruning, {norms}, {count} epochs"
            graphs[name] = export(network, splits[0][:1], out / name.replace(", ", "-") / "model.onnx")
            print(start, name, flush=True)
    return graphs


def measure(of_seed: dict[str, Path], options: Options, out: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Prune, fine-tune, score and time the networks of one seed."""
    model = open_trained_model(of_seed["baseline"], options)
    graphs = made_by_the_example(of_seed["baseline"], tensors(model, model.dataset().train), given.epochs, out)
    for row, checkpoint in of_seed.items():
        if not (out / row).exists():
            sdcompress.export(checkpoint, out / row, layout="single", options=options)
        graphs[row] = out / row / "model.onnx"
    images, classes = (tensor.numpy() for tensor in tensors(model, model.dataset().test))
    calls = {name: call_of(file) for name, file in graphs.items()}
    feeds = [{"input": image[None]} for image in images]
    times = timed(calls, feeds[: given.samples], given.rounds)
    right = {name: [call(feed).argmax() for feed in feeds] == classes for name, call in calls.items()}
    ours = times[OURS[-1]]
    return {
        name: {
            "accuracy": round(float(right[name].mean()), 5),
            "macs": macs(onnx.load(file), {"batch": 1}),
            "mean_ms": round(float(np.concatenate(times[name]).mean()), 5),
            f"mean / mean of {OURS[-1]}": vars(ratio_of_means(times[name], ours)),
        }
        for name, file in graphs.items()
    }


def call_of(file: Path) -> Call:
    """Return the call of a graph with one input and one output, whatever they are named."""
    graph = onnx.load(file, load_external_data=False).graph
    call = by_onnxruntime(file, graph.output[0].name)
    return lambda feed: call({graph.input[0].name: feed["input"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="for the graphs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, nargs="+", default=[12, 100])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--samples", type=int, default=2000, help="test images that are timed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    record, figures = Record(HERE), {}
    options = Options(threads=1, data_dir=given.data_dir)
    for seed in given.seeds:
        of_seed = {row: given.runs / "fashion-200" / row / f"seed{seed}" for row in OURS}
        figures[f"seed{seed}"] = measure(of_seed, options, given.out / f"seed{seed}", given)
        record.write(figures, rounds=given.rounds, threads=1, batch=1)


if __name__ == "__main__":
    main()
