"""Read how images were prepared for published weights, from the JSON files beside them, in timm's words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdcompress.models.weights.files import read_json, weights_folder

__all__ = ["preparation_beside"]

_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # numbers of Pillow, as transformers writes them


def preparation_beside(source: Path) -> Mapping[str, Any]:
    """Return ``mean``, ``std``, ``interpolation`` and ``crop_pct`` of weights, as far as files beside them say so.

    timm writes ``pretrained_cfg`` into ``config.json``, transformers writes ``preprocessor_config.json``.

    Args:
        source: a file or a folder of weights, see ``files.read_weights``.

    Raises:
        WeightsError: if one of these files is no JSON object.
    """
    folder = weights_folder(source) if source.is_dir() else source.parent
    of_timm = read_json(folder / "config.json").get("pretrained_cfg")
    if isinstance(of_timm, dict):
        return of_timm
    fields = read_json(folder / "preprocessor_config.json")
    number = fields.get("resample")
    named = {
        "mean": fields.get("image_mean"),
        "std": fields.get("image_std"),
        "crop_pct": _share(fields),
        "interpolation": _FILTERS.get(number) if isinstance(number, int) else None,
        "crop_mode": "squash" if _squashes(fields) else None,
    }
    return {key: value for key, value in named.items() if value is not None}


def _share(fields: Mapping[str, Any]) -> float | None:
    """Return the side of the centre crop as a share of the resized shorter side."""
    if isinstance(fields.get("crop_pct"), int | float):
        return float(fields["crop_pct"])
    crop, size = _side(fields.get("crop_size"), "height"), _side(fields.get("size"), "shortest_edge")
    return crop / size if crop and size and fields.get("do_center_crop") else None


def _squashes(fields: Mapping[str, Any]) -> bool:
    """Return whether the whole image is resized to a square, which nothing is cut off."""
    size = fields.get("size")
    return isinstance(size, dict) and {"height", "width"} <= size.keys() and not fields.get("do_center_crop")


def _side(value: Any, key: str) -> float | None:
    side = value.get(key) if isinstance(value, dict) else value
    return float(side) if isinstance(side, int | float) and side > 0 else None
