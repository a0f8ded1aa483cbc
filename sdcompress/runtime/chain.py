"""The engine over an artifact: its segments in turn, sure images leave, the others are compacted and go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.read import Artifact
from sdcompress.runtime.backends import Array, Backend, Segment
from sdcompress.runtime.engine import Cost, Images, Prediction, check_inputs, prepare
from sdcompress.runtime.gate import confidence
from sdcompress.schema.manifest import Manifest, Preprocess

__all__ = ["ChainEngine"]


@dataclass(frozen=True)
class _Stage:
    """One segment, what goes in and out, and which of its outputs are still needed after it."""

    run: Segment
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    exits: tuple[int, ...]
    later: frozenset[str]


class ChainEngine:
    """An artifact of any layout, through one backend.

    The rows of a batch never see each other: what happens to an image is the same in every batch, up to the rounding of
    the backend's kernels for that batch size. A batch of 0 images gives a prediction of 0 rows.

    Args:
        artifact: opened and checked.
        backend: loads the segments.
    """

    def __init__(self, artifact: Artifact, backend: Backend) -> None:
        manifest = artifact.manifest
        self.manifest: Manifest = manifest
        channels, height, width = (int(size) for size in manifest.input.shape[1:])
        self._shape = (channels, height, width)
        self._logits = tuple(exit_.logits for exit_ in manifest.exits)
        self._stages = [
            _Stage(
                backend.load(artifact.file(segment), [tensor.name for tensor in segment.outputs]),
                tuple(tensor.name for tensor in segment.inputs),
                tuple(tensor.name for tensor in segment.outputs),
                tuple(k for k, exit_ in enumerate(manifest.exits) if exit_.segment == index),
                frozenset(tensor.name for after in manifest.segments[index + 1 :] for tensor in after.inputs),
            )
            for index, segment in enumerate(manifest.segments)
        ]
        # without a policy, or after the last exit, nothing is asked: everybody goes on, everybody leaves
        thresholds = manifest.policy.thresholds if manifest.policy else (2.0,) * (len(manifest.exits) - 1)
        self._gates = [(t, e.temperature) for t, e in zip(thresholds, manifest.exits[:-1], strict=True)]

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the E exits, shallow to deep."""
        return tuple(exit_.name for exit_ in self.manifest.exits)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.manifest.classes

    @property
    def preprocess_spec(self) -> Preprocess:
        """From an image to the network's input."""
        return self.manifest.input.preprocess

    @property
    def has_policy(self) -> bool:
        """Whether images may leave before the last exit by themselves."""
        return self.manifest.policy is not None

    @property
    def costs(self) -> tuple[Cost | None, ...]:
        """MACs up to each exit; None for the shallow exits of one graph, which always runs whole."""
        segments, last = self.manifest.segments, self.manifest.exits[-1]
        if len(segments) < len(self.manifest.exits):
            whole = Cost(sum(s.macs for s in segments), sum(s.parameters for s in segments))
            return tuple(whole if exit_ is last else None for exit_ in self.manifest.exits)
        return tuple(
            Cost(
                sum(segment.macs for segment in segments[: exit_.segment + 1]),
                segments[0].parameters if exit_.segment == 0 else None,
            )
            for exit_ in self.manifest.exits
        )

    def __call__(self, inputs: Array) -> Prediction:
        """Predict, see ``Engine``."""
        last = len(self._logits) - 1
        if self.manifest.policy is None:
            return self.forced(inputs, last)
        inputs = check_inputs(inputs, self._shape)
        if len(inputs) == 0:
            return self._nobody()
        return self._leaving(inputs)

    def exits(self, inputs: Array) -> Array:
        """Logits of every exit, float32 [E, B, K]; nobody leaves."""
        inputs = check_inputs(inputs, self._shape)
        if len(inputs) == 0:
            return np.empty((len(self._logits), 0, len(self.classes)), np.float32)
        found = self._run_until(inputs, len(self._stages) - 1)
        return np.stack([found[name] for name in self._logits])

    def forced(self, inputs: Array, exit: int) -> Prediction:  # noqa: A002 - the field's word
        """Everybody leaves at exit number ``exit``; segments after it do not run."""
        inputs = check_inputs(inputs, self._shape)
        if len(inputs) == 0:
            return self._nobody()
        found = self._run_until(inputs, self.manifest.exits[exit].segment)
        return Prediction(found[self._logits[exit]], np.full(len(inputs), exit, np.int64))

    def preprocess(self, images: Images) -> Array:
        """From images to ``inputs``, see ``Engine``."""
        return prepare(images, self.preprocess_spec, self._shape)

    def _nobody(self) -> Prediction:
        return Prediction(np.empty((0, len(self.classes)), np.float32), np.empty(0, np.int64))

    def _run_until(self, inputs: Array, segment: int) -> dict[str, Array]:
        """The logits of all exits up to a segment, by name."""
        live, found = {self.manifest.input.name: inputs}, dict[str, Array]()
        for stage in self._stages[: segment + 1]:
            _advance(stage, live)
            found |= {self._logits[k]: live[self._logits[k]] for k in stage.exits}
            _forget(stage, live)
        return found

    def _leaving(self, inputs: Array) -> Prediction:
        live = {self.manifest.input.name: inputs}
        logits = np.empty((len(inputs), len(self.classes)), np.float32)
        exit_index = np.empty(len(inputs), np.int64)
        rows: npt.NDArray[np.int64] | slice = slice(None)  # those that are still in; a slice while that is all of them
        for stage in self._stages:
            _advance(stage, live)
            for k in stage.exits:
                found = live[self._logits[k]]
                left = self._left(found, k)
                stay = np.flatnonzero(~left)
                if len(stay) == len(found):
                    continue
                if len(stay) == 0:
                    logits[rows], exit_index[rows] = found, k
                    return Prediction(logits, exit_index)
                at = np.arange(len(inputs))[rows]
                logits[at[left]], exit_index[at[left]] = found[left], k
                rows = at[stay]
                for name in live:
                    live[name] = live[name][stay]
            _forget(stage, live)
        raise AssertionError("the last exit takes whatever is left")

    def _left(self, logits: Array, exit_index: int) -> npt.NDArray[np.bool_]:
        if exit_index == len(self._gates):
            return np.ones(len(logits), np.bool_)
        threshold, temperature = self._gates[exit_index]
        if threshold > 1.0:
            return np.zeros(len(logits), np.bool_)  # never fires: nothing to compute
        leaves: npt.NDArray[np.bool_] = confidence(logits, temperature) >= threshold
        return leaves


def _advance(stage: _Stage, live: dict[str, Array]) -> None:
    outputs: Sequence[Array] = stage.run({name: live[name] for name in stage.inputs})
    live.update(zip(stage.outputs, outputs, strict=True))


def _forget(stage: _Stage, live: dict[str, Array]) -> None:
    """Drop what no later segment reads, so that compaction copies no more than it must."""
    for name in [name for name in live if name not in stage.later]:
        del live[name]
