"""Describe a served model to the page: what it takes, what it answers, its exits, and examples to try."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from PIL import Image

from sdcompress.artifact.golden import Golden
from sdcompress.serving.model import ServedModel
from sdcompress.serving.protocol.datatypes import datatype_of
from sdcompress.serving.protocol.tensors import binary_of
from sdcompress.tasks import Prediction

__all__ = ["Examples", "described", "picture_of", "watched"]

_MOST_EXAMPLES = 12


def described(model: ServedModel) -> dict[str, Any]:
    """Return what the page shows of a model before its first answer, as JSON."""
    engine, policy = model.engine, model.engine.policy
    prediction = engine.task.prediction_class or Prediction
    reached: Sequence[float] = policy.reach_ms if policy else [cost.macs for cost in engine.exit_costs]
    thresholds = (*policy.thresholds, None) if policy else (None,) * len(model.exits)
    shares = policy.shares if policy else (None,) * len(model.exits)
    return {
        "name": model.name,
        "version": model.version,
        "task": engine.task.record.name,
        "kind": prediction.kind,
        "unit": prediction.unit,
        "policy": policy.name if policy else None,
        "certificate": model.watch.certificate,
        "form": asdict(engine.modality.form),
        "colours": [{"name": name, "rgb": rgb} for name, rgb in engine.task.legend().items()],
        "exits": [
            {"name": name, "threshold": threshold, "share": share, "reach": reach / reached[-1] if reached[-1] else 1}
            for name, threshold, share, reach in zip(model.exits, thresholds, shares, reached, strict=True)
        ],
    }


def watched(model: ServedModel) -> dict[str, Any]:
    """Return what is certified of new requests now: the drop, the thresholds of its level, and what drift has changed.

    ``max_drop`` and ``thresholds`` are None where nothing is certified, or the policy's own thresholds count.
    """
    watch = model.watch
    level = watch.levels[watch.scheduler.level if watch.scheduler else 0] if watch.levels else None
    return {
        "max_drop": level.max_drop if level else None,
        "thresholds": level.thresholds if level else None,
        "alarm": watch.monitor.alarm if watch.monitor else None,
        "fallen_back": bool(watch.scheduler and watch.scheduler.fallen_back),
    }


class Examples:
    """Golden samples of an artifact, to try its model with.

    Args:
        model: of the artifact.

    Raises:
        ArtifactError: if they cannot be read.
    """

    def __init__(self, model: ServedModel) -> None:
        engine = model.engine
        self._modality = engine.modality
        golden = Golden.load(self._modality.path(engine.manifest.golden), self._modality).examples
        count = min(len(golden), _MOST_EXAMPLES)
        self._golden = golden[np.linspace(0, len(golden) - 1, count).round().astype(np.int64)]

    def __len__(self) -> int:
        return len(self._golden)

    def listed(self) -> list[dict[str, Any]]:
        """Return what the page shows of each: what a person would enter, or a picture, or neither."""
        drawn = self._modality.drawn(self._golden)
        pictures = [None] * len(self) if drawn is None else [_data_url(picture) for picture in drawn]
        return [
            {"values": self._modality.entered(example), "picture": picture}
            for example, picture in zip(self._golden, pictures, strict=True)
        ]

    def request(self, at: int) -> tuple[bytes, int]:
        """Return the body of an infer request that sends the prepared inputs of one, and the length of its JSON."""
        arrays = self._modality.collate(self._golden[at : at + 1]).arrays
        tails = {name: binary_of(array) for name, array in arrays.items()}
        inputs = [
            {
                "name": name,
                "datatype": datatype_of(array.dtype.name),
                "shape": array.shape,
                "parameters": {"binary_data_size": len(tails[name])},
            }
            for name, array in arrays.items()
        ]
        head = orjson.dumps({"inputs": inputs})
        return b"".join((head, *tails.values())), len(head)


def picture_of(model: ServedModel, content: bytes, *, most_bytes: int) -> bytes | None:
    """Return a raw example as the network sees it, a PNG file; None: its modality draws no pictures.

    Raises:
        InputError: if it is no raw example of the model.
    """
    modality = model.engine.modality
    raw = modality.raw_from_bytes(content, most_bytes=most_bytes)
    drawn = modality.drawn(np.asarray(modality.example(raw))[None])
    return None if drawn is None else _png(drawn[0])


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def _data_url(pixels: npt.NDArray[np.uint8]) -> str:
    return f"data:image/png;base64,{base64.b64encode(_png(pixels)).decode()}"
