"""Any image classifier of torchvision by its name, with published weights where model.pretrained is set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from sdcompress.errors import RecipeError, SetupError
from sdcompress.models.backbones._torchvision import check_call
from sdcompress.schema import graphs

__all__ = ["torchvision"]

_FILTERS = ("nearest", "bilinear", "bicubic")


def torchvision(
    name: str, *, outputs: tuple[int, ...], inputs: Sequence[graphs.Tensor], pretrained: bool, **options: Any
) -> nn.Module:
    """Return a classifier of torchvision with K classes; ``pretrained_cfg`` records how its published weights see.

    Args:
        name: as ``torchvision.models.get_model`` takes it.
        outputs: (K,).
        inputs: one image of three channels.
        pretrained: download the published weights; the classifier is new unless there are K classes.
        options: further keyword arguments of the network.

    Raises:
        UnknownNameError: if torchvision has no such classifier.
        RecipeError: if the input is no image of three channels, there are no published weights, or more of the network
            than its classifier has another size there.
        SetupError: if the weights cannot be downloaded.
    """
    check_call("torchvision", name, models, inputs, "timm")
    published = getattr(models.get_model_weights(name), "DEFAULT", None)
    network: nn.Module = models.get_model(name, weights=None, num_classes=outputs[0], **_quiet(name), **options)
    if published is not None:
        network.pretrained_cfg = _record(published, network)  # type: ignore[assignment]  # torch takes attributes for modules
    if pretrained:
        _load(network, name, published)
    return network


def _quiet(name: str) -> dict[str, Any]:
    # without published weights these initialise themselves slowly and warn about it
    return {"init_weights": True} if name in {"googlenet", "inception_v3"} else {}


def _record(published: Any, network: nn.Module) -> dict[str, Any]:
    """Return how images are prepared for published weights, in timm's words."""
    made = published.transforms()
    # torchvision has these networks turn ImageNet's mean and deviation into 0.5 themselves, if it loads their weights
    turned = getattr(network, "transform_input", None) is False
    record = {
        "mean": (0.5, 0.5, 0.5) if turned else tuple(made.mean),
        "std": (0.5, 0.5, 0.5) if turned else tuple(made.std),
        "crop_pct": made.crop_size[0] / made.resize_size[0],
        "num_classes": len(published.meta["categories"]),
        "url": published.url,
    }
    return {**record, **({"interpolation": made.interpolation.value} if made.interpolation.value in _FILTERS else {})}


def _load(network: nn.Module, name: str, published: Any) -> None:
    if published is None:
        raise RecipeError(
            f"torchvision publishes no weights of '{name}'.", next_step="remove model.pretrained, or choose another"
        )
    try:
        tensors = published.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
        raise SetupError(
            f"The weights of 'torchvision:{name}' cannot be downloaded: {error}",
            next_step=f"fetch {published.url} on another machine, and put it at {file}; or name the file in "
            "model.weights in the place of model.pretrained",
        ) from error
    here = network.state_dict()
    fits = {key: value for key, value in tensors.items() if key in here and here[key].shape == value.shape}
    of_classes = len(published.meta["categories"])
    body = [
        key
        for key, tensor in here.items()
        if key not in fits
        and tensor.is_floating_point()
        and not (key in tensors and len(tensors[key]) == of_classes and tensors[key].shape[1:] == tensor.shape[1:])
    ]
    if body:
        raise RecipeError(
            f"The published weights of 'torchvision:{name}' do not fit the network that model.options make of it: "
            f"{len(body)} of its {len(here)} tensors are not among them in their size, such as {', '.join(body[:3])}.",
            allowed="options that leave the sizes as they are published; the classifier alone may be another",
            next_step="remove these options, or model.pretrained to train from random weights",
        )
    network.load_state_dict(fits, strict=False)
