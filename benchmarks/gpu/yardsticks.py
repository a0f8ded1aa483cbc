"""The same network run by torch: eager and compiled, FP32 and FP16, from an array of the host to one of the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from clocks import Sample, wall

from sdcompress.checkpoint import open_checkpoint


def torch_calls(checkpoint: Path, rows: int) -> dict[str, Callable[[], Sample]]:
    """By name, calls over one batch of random images; the whole network with its heads, as torch runs it.

    Args:
        checkpoint: a folder of a checkpoint.
        rows: of the batch.
    """
    opened = open_checkpoint(checkpoint)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # as the engines are built
    torch.backends.cudnn.benchmark = True
    images = np.random.default_rng(0).standard_normal((rows, *opened.modality.tensors[0].shape[1:])).astype(np.float32)
    pinned = torch.from_numpy(images).pin_memory()
    calls: dict[str, Callable[[], Sample]] = {}
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        network = opened.network().to("cuda", dtype)

        def last(x: torch.Tensor, network: torch.nn.Module = network) -> torch.Tensor:
            return network(x).logits[-1]

        for kind, run in (("eager", last), ("compiled", torch.compile(last, mode="reduce-overhead"))):
            calls[f"{kind} {name}"] = wall(_call(run, pinned, dtype))
    return calls


def _call(
    run: Callable[[torch.Tensor], torch.Tensor], pinned: torch.Tensor, dtype: torch.dtype
) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return run(pinned.to("cuda", non_blocking=True).to(dtype)).float().cpu().numpy()

    return call
