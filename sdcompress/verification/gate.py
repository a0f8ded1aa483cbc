"""The parity gate: compare graphs with the checkpoint, and save those that fail beside the output."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.errors import ParityError
from sdcompress.modalities import Inputs, Modality
from sdcompress.onnx_graph.tensor_values import first_not_finite
from sdcompress.schema.manifest import ExitSignals, ParityRecord
from sdcompress.schema.recipe import Export
from sdcompress.storage import storage_errors
from sdcompress.tasks import Task
from sdcompress.verification import parity
from sdcompress.verification.edge_cases import EdgeCases, differences, ill_conditioned
from sdcompress.verification.sessions import SegmentSessions

__all__ = ["ParityGate", "check_signals", "save_failed"]

_SHOWN = 3  # differences in a message; further ones are of the same kind


class ParityGate:
    """The parity gate of one checkpoint.

    Args:
        examples: [N, ...], real and held out.
        outputs: for each exit the checkpoint's outputs for them, float32 [N, ...].
        edge_cases: the checkpoint's outputs of the same exits for edge cases.
        modality: prepares examples.
        task: what the outputs mean.
        settings: tolerances and the largest batch.
        advance: called with the number of examples that were compared.
        threads: of ONNX Runtime; 0 leaves the choice to it.
    """

    def __init__(
        self,
        examples: np.ndarray,
        outputs: Mapping[str, np.ndarray],
        edge_cases: EdgeCases,
        *,
        modality: Modality,
        task: Task,
        settings: Export,
        advance: Callable[[int], None],
        threads: int = 0,
    ) -> None:
        self._examples, self._outputs, self._edge_cases = examples, outputs, edge_cases
        self._advance, self._threads = advance, threads
        self._modality, self._task, self._settings = modality, task, settings

    def __call__(
        self, graphs: Mapping[str, bytes], exits: Mapping[str, str], *, out: Path, what: str
    ) -> tuple[ParityRecord, ...]:
        """The parity record of each exit, of graphs that pass.

        Args:
            graphs: file name -> bytes, in the order of the cascade.
            exits: name of an exit -> name of its outputs.
            out: folder of the artifact that is being written.
            what: the export in words, for the error.

        Raises:
            ParityError: if they do not compute what the checkpoint computes; they are saved in ``<out>.failed``.
        """
        findings = self.findings(graphs, exits)
        self._advance(len(self._examples))
        problem = parity.describe_failures(findings)
        if problem:
            folder = save_failed(out, graphs, findings)
            raise ParityError(
                f"The {what} does not compute what the checkpoint computes. {problem}.",
                allowed="finite outputs within atol + rtol * max|reference|, and no influence of one example of a "
                "batch on another",
                next_step=f"see {folder / 'parity.json'}; a network that mixes the examples of a batch cannot be "
                "exported, otherwise choose other exits or another backbone",
            )
        self._check_edge_cases(graphs, exits, out=out, what=what)
        return parity.records(findings)

    def _check_edge_cases(self, graphs: Mapping[str, bytes], exits: Mapping[str, str], *, out: Path, what: str) -> None:
        """Compare graphs that pass on real examples with the checkpoint on edge cases."""
        edge_cases, named = self._edge_cases, {name: self._edge_cases.outputs[name] for name in exits}
        if kinds := ill_conditioned(edge_cases, self._settings):
            warnings.warn(
                f"The network's outputs for examples that are {', '.join(kinds)} depend on the last digits of the "
                "input. The exported graph may decide otherwise there, and so may torch on another machine.",
                stacklevel=4,
            )
        problems = differences(self._sessions(graphs, exits), replace(edge_cases, outputs=named), self._settings)
        if not problems:
            return
        folder = save_failed(out, graphs, ())
        node = first_not_finite(graphs, edge_cases.inputs.arrays)
        raise ParityError(
            f"The {what} does not compute what the checkpoint computes: {'; '.join(problems[:_SHOWN])}."
            + (f" The first value that is not finite comes from the {node}." if node else ""),
            allowed="NaN where the checkpoint's outputs are NaN and nowhere else, and outputs within atol + rtol * "
            "max|reference|, unless roundings of the input move the checkpoint's outputs further",
            next_step=f"see {folder}; a divisor that may be zero needs a larger epsilon in the network, such as 1e-6",
        )

    def signals(
        self, graphs: Mapping[str, bytes], signals: Mapping[str, ExitSignals], exits: Mapping[str, str]
    ) -> None:
        """Compare the signals that the graphs compute with those of their outputs.

        Args:
            graphs: file name -> bytes, in the order of the cascade.
            signals: name of an exit -> names of its signals.
            exits: name of an exit -> name of its outputs.

        Raises:
            ParityError: if they differ.
        """
        if not signals:
            return
        size = self._settings.parity_max_batch  # all examples at once may take more memory than there is
        batches = (self._examples[start : start + size] for start in range(0, len(self._examples), size))
        check_signals(
            self._sessions(graphs, exits),
            map(self._modality.collate, batches),
            {exits[exit_]: names for exit_, names in signals.items()},
            self._task,
        )

    def findings(self, graphs: Mapping[str, bytes], exits: Mapping[str, str]) -> tuple[parity.Finding, ...]:
        """Return the finding of each exit, passed or not; writes nothing."""
        reference = np.stack([self._outputs[name] for name in exits])
        open_network = partial(self._run, graphs, exits)
        return parity.compare_outputs(
            open_network, self._examples, reference, exits=list(exits), task=self._task, settings=self._settings
        )

    def _run(self, graphs: Mapping[str, bytes], exits: Mapping[str, str]) -> parity.Run:
        sessions = self._sessions(graphs, exits)
        return lambda examples: sessions(self._modality.collate(examples))

    def _sessions(self, graphs: Mapping[str, bytes], exits: Mapping[str, str]) -> SegmentSessions:
        return SegmentSessions(list(graphs.values()), outputs=list(exits.values()), threads=self._threads)


def save_failed(out: Path, graphs: Mapping[str, bytes], findings: Sequence[Any]) -> Path:
    """Save graphs that failed in ``<out>.failed``, with the findings in ``parity.json``; returns that folder.

    Where a file or a link has this name, the folder gets a number, so that the error about the graphs is not lost.

    Args:
        out: folder of the artifact that is being written.
        graphs: file name -> bytes.
        findings: a dataclass for each exit.
    """
    out = out.resolve()
    names = (f"{out.name}.failed{number}" for number in chain([""], map("-{}".format, count(2))))
    folder = next(
        path for path in map(out.with_name, names) if path.is_dir() is path.exists() and not path.is_symlink()
    )
    with storage_errors(folder):
        if (folder / "parity.json").is_file():  # of an earlier failure
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in graphs.items():
            (folder / name).write_bytes(data)
        parity.write_findings(findings, folder / "parity.json")
    return folder


def check_signals(
    sessions: SegmentSessions, batches: Iterable[Inputs], signals: Mapping[str, ExitSignals], task: Task
) -> None:
    """Compare the signals that graphs compute with those that numpy computes from the same outputs.

    Args:
        sessions: the graphs.
        batches: inputs of real examples; at least one batch.
        signals: name of the outputs -> names of the signals.
        task: what the outputs mean.

    Raises:
        ParityError: if they differ.
    """
    compared = {tensor for outputs, names in signals.items() for tensor in (outputs, names.values, names.decision)}
    parts: dict[str, list[np.ndarray]] = {tensor: [] for tensor in compared}
    for inputs in batches:
        computed = sessions.run(inputs)
        for tensor, part in parts.items():
            part.append(computed[tensor])
    tensors = {tensor: np.concatenate(part) for tensor, part in parts.items()}
    for outputs, names in signals.items():
        expected = task.signals(tensors[outputs])
        largest = float(np.abs(tensors[names.values] - expected.stacked()).max())
        differing = int(task.flips(tensors[names.decision], expected.decision).sum())
        allowed = parity.signals_tolerance(expected.stacked())
        if not largest <= allowed or differing:
            raise ParityError(
                f"The signals of '{outputs}' in the graph are off by {largest:.2g}, and {differing} of "
                f"{len(expected.decision)} decisions differ.",
                allowed=f"a difference of {allowed:g}, and no other decision",
                next_step="try another version of onnxruntime; if that does not help, report it with the graph",
            )
