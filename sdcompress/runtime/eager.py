"""Torch as an engine: the yardstick that exported files are compared with. The only file here that imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import requires_extra
from sdcompress.runtime.backends import Array
from sdcompress.runtime.engine import Cost, Images, Prediction, check_inputs, prepare
from sdcompress.schema.manifest import Preprocess

with requires_extra("train"):
    import torch

    from sdcompress.models.cost import costs

__all__ = ["EagerEngine"]


class EagerEngine:
    """The network of a checkpoint, run whole; nobody leaves early by themselves.

    Args:
        path: a checkpoint, or the folder of a training run.
        threads: torch's intra-op threads for the whole process; None leaves them.
        device: "cpu" or "cuda".
    """

    def __init__(self, path: Path | str, *, threads: int | None = None, device: str = "cpu") -> None:
        self.checkpoint = open_checkpoint(path)
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._net = self.checkpoint.network().to(self._device)
        self._run = self._net.logits_only()
        self._costs = tuple(Cost(c.macs, c.parameters) for c in costs(self._net, self.checkpoint.image))

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the E exits, shallow to deep."""
        return self._net.exit_names

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.checkpoint.classes

    @property
    def preprocess_spec(self) -> Preprocess:
        """From an image to the network's input."""
        return self.checkpoint.preprocess

    @property
    def has_policy(self) -> bool:
        """A checkpoint has none."""
        return False

    @property
    def costs(self) -> tuple[Cost | None, ...]:
        """Of the network pruned to each exit."""
        return self._costs

    def __call__(self, inputs: Array) -> Prediction:
        """The last exit's logits, see ``Engine``."""
        return self.forced(inputs, len(self.exit_names) - 1)

    def exits(self, inputs: Array) -> Array:
        """Logits of every exit, float32 [E, B, K]."""
        inputs = check_inputs(inputs, self.checkpoint.image)
        with torch.inference_mode():
            logits = self._run(torch.from_numpy(inputs).to(self._device))
        return np.stack([tensor.cpu().numpy() for tensor in logits])

    def forced(self, inputs: Array, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """The logits of one exit; the whole network runs all the same."""
        return Prediction(self.exits(inputs)[exit], np.full(len(inputs), exit, np.int64))

    def preprocess(self, images: Images) -> Array:
        """From images to ``inputs``, see ``Engine``."""
        return prepare(images, self.preprocess_spec, self.checkpoint.image)
