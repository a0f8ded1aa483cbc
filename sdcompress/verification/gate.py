"""The parity gate: compare graphs with the checkpoint, and save those that fail beside the output."""

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
from sdcompress.verification.edge_cases import EdgeCaseLogits, differences, ill_conditioned
from sdcompress.verification.sessions import SegmentSessions

__all__ = ["ParityGate", "check_signals", "save_failed"]

_SHOWN = 3  # differences in a message; further ones are of the same kind


class ParityGate:
    """The parity gate of one checkpoint.

    Args:
        images: uint8 [N, H, W, C], real and held out.
        logits: for each exit the checkpoint's logits on them, float32 [N, K].
        edge_cases: the checkpoint's logits of the same exits on blank, saturated and noisy images.
        network_input: the network's input.
        task: what the logits mean.
        settings: tolerances and the largest batch.
        advance: called with the number of images that were compared.
        threads: of ONNX Runtime; 0 leaves the choice to it.
    """

    def __init__(
        self,
        images: np.ndarray,
        logits: Mapping[str, np.ndarray],
        edge_cases: EdgeCaseLogits,
        *,
        network_input: Input,
        task: Task,
        settings: Export,
        advance: Callable[[int], None],
        threads: int = 0,
    ) -> None:
        self._images, self._logits, self._edge_cases = images, logits, edge_cases
        self._advance, self._threads = advance, threads
        self._input, self._task, self._settings = network_input, task, settings

    def __call__(
        self, graphs: Mapping[str, bytes], exits: Mapping[str, str], *, out: Path, what: str
    ) -> tuple[ParityRecord, ...]:
        """The parity record of each exit, of graphs that pass.

        Args:
            graphs: file name -> bytes, in the order of the cascade.
            exits: name of an exit -> name of its logits.
            out: folder of the artifact that is being written.
            what: the export in words, for the error.

        Raises:
            ParityError: if they do not compute what the checkpoint computes; they are saved in ``<out>.failed``.
        """
        findings = self.findings(graphs, exits)
        self._advance(len(self._images))
        problem = parity.describe_failures(findings)
        if problem:
            folder = save_failed(out, graphs, findings)
            raise ParityError(
                f"The {what} does not compute what the checkpoint computes. {problem}.",
                allowed="finite logits within atol + rtol * max|reference|, the same class for every image, and no "
                "influence of one image of a batch on another",
                next_step=f"see {folder / 'parity.json'}; a network that mixes the images of a batch cannot be "
                "exported, otherwise choose other exits or another backbone",
            )
        self._check_edge_cases(graphs, exits, out=out, what=what)
        return parity.records(findings)

    def _check_edge_cases(self, graphs: Mapping[str, bytes], exits: Mapping[str, str], *, out: Path, what: str) -> None:
        """Compare graphs that pass on real images with the checkpoint on edge cases."""
        edge_cases, named = self._edge_cases, {name: self._edge_cases.logits[name] for name in exits}
        if kinds := ill_conditioned(edge_cases, self._settings):
            warnings.warn(
                f"The network's logits for images that are {', '.join(kinds)} depend on the last digits of the input. "
                "The exported graph may predict another class there, and so may torch on another machine.",
                stacklevel=4,
            )
        problems = differences(self._run(graphs, exits), replace(edge_cases, logits=named), self._settings)
        if not problems:
            return
        folder = save_failed(out, graphs, ())
        node = first_not_finite(graphs, self._input.name, normalise(edge_cases.images, self._input.preprocess))
        raise ParityError(
            f"The {what} does not compute what the checkpoint computes: {'; '.join(problems[:_SHOWN])}."
            + (f" The first value that is not finite comes from the {node}." if node else ""),
            allowed="NaN where the checkpoint's logits are NaN and nowhere else, and logits within atol + rtol * "
            "max|reference|, unless roundings of the image move the checkpoint's logits further",
            next_step=f"see {folder}; a divisor that may be zero needs a larger epsilon in the network, such as 1e-6",
        )

    def signals(
        self, graphs: Mapping[str, bytes], signals: Mapping[str, ExitSignals], exits: Mapping[str, str]
    ) -> None:
        """Compare the signals that the graphs compute with those of their logits.

        Args:
            graphs: file name -> bytes, in the order of the cascade.
            signals: name of an exit -> names of its signals.
            exits: name of an exit -> name of its logits.

        Raises:
            ParityError: if they differ.
        """
        sessions = self._sessions(graphs, exits)
        inputs = normalise(self._images, self._input.preprocess)
        check_signals(sessions, inputs, {exits[exit_]: names for exit_, names in signals.items()}, self._task)

    def findings(self, graphs: Mapping[str, bytes], exits: Mapping[str, str]) -> tuple[parity.Finding, ...]:
        """The finding of each exit, passed or not; writes nothing."""
        reference = np.stack([self._logits[name] for name in exits])
        open_network = partial(self._run, graphs, exits)
        return parity.compare_logits(open_network, self._images, reference, exits=list(exits), settings=self._settings)

    def _run(self, graphs: Mapping[str, bytes], exits: Mapping[str, str]) -> parity.Run:
        sessions = self._sessions(graphs, exits)
        return lambda images: sessions(normalise(images, self._input.preprocess))

    def _sessions(self, graphs: Mapping[str, bytes], exits: Mapping[str, str]) -> SegmentSessions:
        return SegmentSessions(
            list(graphs.values()),
            network_input=self._input.name,
            logits=list(exits.values()),
            threads=self._threads,
        )


def save_failed(out: Path, graphs: Mapping[str, bytes], findings: Sequence[Any]) -> Path:
    """Save graphs that failed in ``<out>.failed``, with the findings in ``parity.json``; returns that folder.

    Args:
        out: folder of the artifact that is being written.
        graphs: file name -> bytes.
        findings: a dataclass for each exit.
    """
    out = out.resolve()
    folder = out.with_name(f"{out.name}.failed")
    with storage_errors(folder):
        if (folder / "parity.json").is_file():  # of an earlier failure
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in graphs.items():
            (folder / name).write_bytes(data)
        parity.write_findings(findings, folder / "parity.json")
    return folder


def check_signals(sessions: SegmentSessions, inputs: np.ndarray, signals: dict[str, ExitSignals], task: Task) -> None:
    """Compare the signals that graphs compute with those that numpy computes from the same logits.

    Args:
        sessions: the graphs.
        inputs: float32 [B, C, H, W], of real images.
        signals: name of the logits -> names of the signals.
        task: what the logits mean.

    Raises:
        ParityError: if they differ.
    """
    tensors = sessions.run(inputs)
    for logits, names in signals.items():
        expected = task.signals(tensors[logits])
        largest = float(np.abs(tensors[names.values] - expected.stacked()).max())
        differing = int((tensors[names.decision] != expected.decision).sum())
        if not largest <= SIGNALS_ATOL or differing:
            raise ParityError(
                f"The signals of '{logits}' in the graph are off by {largest:.2g}, and {differing} of {len(inputs)} "
                "answers differ.",
                allowed=f"a difference of {SIGNALS_ATOL:g}, and no other answer",
                next_step="try another version of onnxruntime; if that does not help, report it with the graph",
            )
