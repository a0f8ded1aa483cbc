"""Read how published weights want images prepared, and what of it fits the images of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdcompress.modalities._preprocess_settings import Preprocess

__all__ = ["own_settings", "settings_of_weights"]

_FILTERS = ("nearest", "bilinear", "bicubic")


def settings_of_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of images that a ``pretrained_cfg`` of timm names."""
    settings: dict[str, Any] = {}
    for name in ("mean", "std"):
        values = config.get(name)
        if isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values):
            settings[name] = tuple(map(float, values))
    if config.get("interpolation") in _FILTERS:
        settings["interpolation"] = config["interpolation"]
    share = config.get("crop_pct")
    if config.get("crop_mode") == "squash":
        settings["crop"] = "none"
    elif isinstance(share, int | float) and 0 < share <= 1:
        settings["crop"] = float(share)
    return settings


def own_settings(preprocess: Preprocess, like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in use that those of weights can replace; see ``Modality.own_settings``."""
    fits = {
        "mean": len(like.get("mean", preprocess.mean)) == preprocess.channels,
        "std": len(like.get("std", preprocess.std)) == preprocess.channels,
        "interpolation": preprocess.resize is not None,
    }
    own = {name: getattr(preprocess, name) for name, usable in fits.items() if usable}
    # a crop of the data set's own holds for no other data set
    if preprocess.crop is None or preprocess.resize is None or "crop" not in like:
        return own
    return {**own, "crop": _crop(preprocess.resize, preprocess.crop, like["crop"])}


def _crop(resize: tuple[int, int] | int, crop: tuple[int, int], like: Any) -> Any:
    """Return the share that a crop keeps; a share that gives the same pixels is equal."""
    # one number for the shorter side, where the crop is a square
    pairs = [(min(crop), resize)] if isinstance(resize, int) else list(zip(crop, resize, strict=True))
    same = isinstance(like, float) and all(round(side / like) == resized for side, resized in pairs)
    side, resized = min(pairs)
    return like if same else round(side / resized, 3)
