"""Hold graphs against the checkpoint; what fails is set aside beside the output, without a manifest."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.errors import ParityError
from sdcompress.modalities._geometry import normalise
from sdcompress.onnx_graph.probe import first_not_finite
from sdcompress.policies._base import SIGNALS_ATOL
from sdcompress.schema.manifest import ExitSignals, Input, ParityRecord
from sdcompress.schema.recipe import Export
from sdcompress.storage import storage_errors
from sdcompress.tasks import Task
from sdcompress.verification import parity
from sdcompress.verification.hard_images import HardLogits, decided_by_rounding, differences
from sdcompress.verification.sessions import Chain

__all__ = ["Gate", "check_signals", "set_aside"]

_TOLD = 3  # of what differs, the others are of the same kind


class Gate:
    """The parity gate of one checkpoint.

    Args:
        images: uint8 [N, H, W, C], real and held out.
        logits: for each exit the checkpoint's logits on them, float32 [N, K].
        hard: for the same exits its logits on blank, saturated and noisy images.
        network_input: the network's input.
        task: what the logits mean.
        settings: tolerances and the largest batch.
        tick: told how many images were compared.
        threads: of ONNX Runtime; 0 leaves the choice to it.
    """

    def __init__(
        self,
        images: np.ndarray,
        logits: Mapping[str, np.ndarray],
        hard: HardLogits,
        *,
        network_input: Input,
        task: Task,
        settings: Export,
        tick: Callable[[int], None],
        threads: int = 0,
    ) -> None:
        self._images, self._logits, self._hard = images, logits, hard
        self._tick, self._threads = tick, threads
        self._input, self._task, self._settings = network_input, task, settings

    def __call__(
        self, graphs: Mapping[str, bytes], exits: Mapping[str, str], *, out: Path, what: str
    ) -> tuple[ParityRecord, ...]:
        """The figures of graphs that pass.

        Args:
            graphs: file name -> bytes, in the order of the chain.
            exits: name of an exit -> name of its logits.
            out: where the artifact would have gone.
            what: the export in words, for the error.

        Raises:
            ParityError: if they do not compute what the checkpoint computes; they are left in ``<out>.failed``.
        """
        findings = self.findings(graphs, exits)
        self._tick(len(self._images))
        problem = parity.describe(findings)
        if problem:
            folder = set_aside(out, graphs, findings)
            raise ParityError(
                f"The {what} does not compute what the checkpoint computes. {problem}.",
                allowed="finite logits within atol + rtol * max|reference|, the same class for every image, and no "
                "influence of one image of a batch on another",
                next_step=f"see {folder / 'parity.json'}; a network that mixes the images of a batch cannot be "
                "exported, otherwise choose other exits or another backbone",
            )
        self._check_hard(graphs, exits, out=out, what=what)
        return parity.records(findings)

    def _check_hard(self, graphs: Mapping[str, bytes], exits: Mapping[str, str], *, out: Path, what: str) -> None:
        """Hold graphs that pass on real images against the checkpoint on those that real ones rarely are."""
        hard, named = self._hard, {name: self._hard.logits[name] for name in exits}
        if kinds := decided_by_rounding(hard, self._settings):
            warnings.warn(
                f"The network's answers to images that are {', '.join(kinds)} hang on the last digits of the input: "
                "the checkpoint's own logits move with them. The exported graph may answer otherwise there.",
                stacklevel=4,
            )
        found = differences(self._run(graphs, exits), replace(hard, logits=named), self._settings)
        if not found:
            return
        folder = set_aside(out, graphs, ())
        node = first_not_finite(graphs, self._input.name, normalise(hard.images, self._input.preprocess))
        raise ParityError(
            f"The {what} does not compute what the checkpoint computes: {'; '.join(found[:_TOLD])}."
            + (f" The first that is not finite comes from the {node}." if node else ""),
            allowed="NaN where the checkpoint's logits are NaN and nowhere else, and logits within atol + rtol * "
            "max|reference| where a rounding of the image does not move the checkpoint's own further",
            next_step=f"see {folder}; a divisor that may be zero needs a larger epsilon in the network, such as 1e-6",
        )

    def signals(
        self, graphs: Mapping[str, bytes], signals: Mapping[str, ExitSignals], exits: Mapping[str, str]
    ) -> None:
        """Hold the signals that the graphs compute against their own logits.

        Args:
            graphs: file name -> bytes, in the order of the chain.
            signals: name of an exit -> names of its signals.
            exits: name of an exit -> name of its logits.

        Raises:
            ParityError: if they differ.
        """
        chain = self._chain(graphs, exits)
        inputs = normalise(self._images, self._input.preprocess)
        check_signals(chain, inputs, {exits[exit_]: names for exit_, names in signals.items()}, self._task)

    def findings(self, graphs: Mapping[str, bytes], exits: Mapping[str, str]) -> tuple[parity.Finding, ...]:
        """The figures of each exit, passed or not; nothing is written."""
        reference = np.stack([self._logits[name] for name in exits])
        make = partial(self._run, graphs, exits)
        return parity.compare(make, self._images, reference, exits=list(exits), settings=self._settings)

    def _run(self, graphs: Mapping[str, bytes], exits: Mapping[str, str]) -> parity.Run:
        chain = self._chain(graphs, exits)
        return lambda images: chain(normalise(images, self._input.preprocess))

    def _chain(self, graphs: Mapping[str, bytes], exits: Mapping[str, str]) -> Chain:
        return Chain(
            list(graphs.values()),
            network_input=self._input.name,
            logits=list(exits.values()),
            threads=self._threads,
        )


def set_aside(out: Path, graphs: Mapping[str, bytes], findings: Sequence[Any]) -> Path:
    """Leave graphs that failed in ``<out>.failed``, with the figures in ``parity.json``; returns that folder.

    Args:
        out: where the artifact would have gone.
        graphs: file name -> bytes.
        findings: what is wrong with them, a dataclass for each exit.
    """
    out = out.resolve()
    folder = out.with_name(f"{out.name}.failed")
    with storage_errors(folder):
        if (folder / "parity.json").is_file():  # of an earlier failure
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in graphs.items():
            (folder / name).write_bytes(data)
        parity.write(findings, folder / "parity.json")
    return folder


def check_signals(chain: Chain, inputs: np.ndarray, signals: dict[str, ExitSignals], task: Task) -> None:
    """Hold the signals in the graphs against numpy's, of the same logits.

    Args:
        chain: the graphs.
        inputs: float32 [B, C, H, W], real ones.
        signals: name of the logits -> names of the signals.
        task: what the logits mean.

    Raises:
        ParityError: if they differ.
    """
    tensors = chain.run(inputs)
    for logits, names in signals.items():
        expected = task.signals(tensors[logits])
        off = float(np.abs(tensors[names.values] - expected.stacked()).max())
        others = int((tensors[names.decision] != expected.decision).sum())
        if not off <= SIGNALS_ATOL or others:
            raise ParityError(
                f"The signals of '{logits}' in the graph are off by {off:.2g}, and {others} of {len(inputs)} answers "
                "differ.",
                allowed=f"a difference of {SIGNALS_ATOL:g}, and no other answer",
                next_step="try another version of onnxruntime; if that does not help, report it with the graph",
            )
