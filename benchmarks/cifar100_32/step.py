"""Measure what one thread gives in products and convolutions, and what a training step of some networks takes of it.

    PYTHONPATH=. python benchmarks/cifar100_32/step.py --networks cifar:resnet18:0.5 --bfloat16 --heads

CPU time, the best of several repetitions, so that other work on the machine counts little. Writes step.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

from sdcompress.models.build import build
from sdcompress.models.cost import costs
from sdcompress.schema.graphs import Tensor
from sdcompress.schema.recipe import Exits, Model
from sdcompress.training.strided_depthwise import keep_in_float32

HERE = Path(__file__).resolve().parent
BATCH = 128
CONVOLUTIONS = ((32, 32, 32), (64, 64, 32), (64, 128, 32), (128, 128, 16), (256, 256, 8), (512, 512, 4))
IMAGE = Tensor(name="image", shape=("batch", 3, 32, 32), dtype="float32")


def seconds(work: Callable[[], object], repetitions: int = 5) -> float:
    best = float("inf")
    for repetition in range(repetitions + 2):
        start = time.process_time()
        work()
        if repetition >= 2:
            best = min(best, time.process_time() - start)
    return best


def ceilings() -> dict[str, dict[str, float]]:
    """Return GFLOP/s of a product and of convolutions, by data type."""
    gflops = dict[str, dict[str, float]]()
    for dtype in (torch.float32, torch.bfloat16):
        one, other = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
        taken = seconds(lambda one=one, other=other: one @ other)
        figures = {"product of 2048 x 2048": 2 * 2048**3 / taken / 1e9}
        for inputs, outputs, side in CONVOLUTIONS:
            images, weights = torch.randn(BATCH, inputs, side, side), torch.randn(outputs, inputs, 3, 3)
            x, w = (t.to(dtype, memory_format=torch.channels_last).requires_grad_() for t in (images, weights))
            flops = 2 * BATCH * inputs * outputs * 9 * side * side

            def both(x: torch.Tensor = x, w: torch.Tensor = w) -> None:
                result = F.conv2d(x, w, padding=1)
                torch.autograd.grad(result, (x, w), torch.ones_like(result))

            with torch.no_grad():
                forward = seconds(lambda x=x, w=w: F.conv2d(x, w, padding=1))
            name = f"3x3 convolution of {inputs} to {outputs} channels at {side}"
            figures[f"{name}, forward"] = flops / forward / 1e9
            figures[f"{name}, forward and backward"] = 3 * flops / seconds(both) / 1e9
        gflops[str(dtype).removeprefix("torch.")] = {name: round(value, 1) for name, value in figures.items()}
    return gflops


@dataclass(frozen=True)
class Kind:
    """Of a training step, augmentation and the terms of a method not counted.

    Attributes:
        network: family:name:width.
        batch: images.
        heads: with three exits before the last, each with its cross-entropy.
        bfloat16: under autocast.
        kept: strided depthwise convolutions, which the heads have, in float32 all the same, as ``train`` keeps them.
        compiled: by torch.compile.
    """

    network: str
    batch: int
    heads: bool = False
    bfloat16: bool = False
    kept: bool = True
    compiled: bool = False

    def __str__(self) -> str:
        parts = [
            f"{self.network}, batch {self.batch}",
            *["three exits"] * self.heads,
            *["bfloat16"] * self.bfloat16,
            *["depthwise too"] * (not self.kept),
            *["compiled"] * self.compiled,
        ]
        return ", ".join(parts)


def step(kind: Kind) -> dict[str, float]:
    """Return what one training step takes."""
    family, network, width = kind.network.split(":")
    batch = kind.batch
    model = Model(name=f"{family}:{network}", options={} if width == "1" else {"width": float(width)})
    exits = Exits(count=3, head="attention", width_cap=256) if kind.heads else Exits(count=1)
    net = build(model, exits, outputs=(100,), inputs=[IMAGE], heads=kind.heads)
    if kind.bfloat16 and kind.kept:
        keep_in_float32(net)
    macs = costs(net, [IMAGE])[-1].macs
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)
    run: nn.Module = torch.compile(net) if kind.compiled else net  # type: ignore[assignment]
    images = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 100, (batch,))

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=kind.bfloat16):
            logits = run(images).logits
        sum(F.cross_entropy(one.float(), labels) for one in logits).backward()
        optimizer.step()
        optimizer.zero_grad()

    taken = seconds(work)
    figures = {"macs": macs, "ms_an_image": round(1e3 * taken / batch, 2)}  # of the backbone
    return figures if kind.heads else {**figures, "gflops": round(6 * macs * batch / taken / 1e9, 1)}


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--networks", nargs="*", default=[], help="family:name:width")
    read.add_argument("--batches", nargs="+", type=int, default=[BATCH])
    read.add_argument("--bfloat16", action="store_true", help="also in bfloat16")
    read.add_argument("--heads", action="store_true", help="also with exits")
    read.add_argument("--compile", action="store_true", help="also with torch.compile")
    given = read.parse_args()
    torch.set_num_threads(1)
    record = Record(HERE)
    kinds = [
        Kind(name, batch, heads, bfloat16, kept, compiled)
        for name in given.networks
        for batch in given.batches
        for heads in ((False, True) if given.heads else (False,))
        for bfloat16 in ((False, True) if given.bfloat16 else (False,))
        for kept in ((True, False) if heads and bfloat16 else (True,))
        for compiled in ((False, True) if given.compile else (False,))
    ]
    steps = {str(kind): step(kind) for kind in kinds}
    record.write({"gflops": ceilings(), "steps": steps}, threads=1, batch_of_ceilings=BATCH)


if __name__ == "__main__":
    main()
