"""Measure the recipe camvid's network in torch, whole and truncated at its exits, in processor time.

Times do not depend on weights, so these are random. Rounds are interleaved, and every second one runs backwards.
"""

from __future__ import annotations

from time import process_time

import numpy as np
import torch

from sdcompress.models.build import build
from sdcompress.schema.graphs import Tensor
from sdcompress.schema.recipe import Exits, Model

SIZE, ROUNDS, WARM_UP = (180, 240), 14, 2

torch.set_num_threads(1)
net = build(
    Model(name="timm_fcn:tf_efficientnet_lite0", options={"output_stride": 16}),
    Exits(modules=("encoder.blocks.2", "encoder.blocks.4"), head="dense", width_cap=128),
    outputs=(11, *SIZE),
    inputs=(Tensor(name="input", dtype="float32", shape=("batch", 3, *SIZE)),),
).eval()
encoder = net.backbone.encoder


def until(images: torch.Tensor, block: int) -> torch.Tensor:
    """Return the map behind a block of the encoder."""
    features = encoder.bn1(encoder.conv_stem(images))
    for part in encoder.blocks[: block + 1]:
        features = part(features)
    return features


networks = {
    "final": net.backbone,
    "exit1": lambda images: net.heads[0](until(images, 2))[0],
    "exit2": lambda images: net.heads[1](until(images, 4))[0],
}
seconds: dict[str, list[float]] = {name: [] for name in networks}
images = torch.randn(1, 3, *SIZE)
with torch.inference_mode():
    for number in range(ROUNDS):
        for name in list(networks)[:: 1 if number % 2 else -1]:
            start = process_time()
            networks[name](images)
            seconds[name].append(process_time() - start)
for name, times in seconds.items():
    ratios = np.array(seconds["final"][WARM_UP:]) / np.array(times[WARM_UP:])
    print(f"{name}: {1000 * np.median(times[WARM_UP:]):.1f} ms, {np.median(ratios):.2f}x as fast as the whole network")
