"""Write metrics.jsonl and TensorBoard during training, consistent with the checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from sdcompress.checkpoint import METRICS, read_metrics
from sdcompress.storage import storage_errors, write_text

__all__ = ["MetricsLog", "write_metrics"]


def write_metrics(folder: Path, lines: Iterable[dict[str, float]]) -> None:
    """Replace the metrics.jsonl of a training run; ``read_metrics`` of ``checkpoint`` reads it."""
    write_text(folder / METRICS, "".join(json.dumps(line) + "\n" for line in lines))


class MetricsLog:
    """One line per epoch.

    Args:
        folder: of the training run.
        step: steps done when the run starts or goes on; later lines of an earlier try are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / METRICS
        write_metrics(folder, [line for line in read_metrics(folder) if line["step"] <= step])
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def write(self, metrics: dict[str, float]) -> None:
        """Add a line; ``metrics`` has at least 'epoch' and 'step'."""
        with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        for name, value in metrics.items():
            if name not in ("epoch", "step"):
                self._board.add_scalar(name, value, int(metrics["step"]))
        self._board.flush()

    def close(self) -> None:
        """Close the TensorBoard file."""
        self._board.close()
