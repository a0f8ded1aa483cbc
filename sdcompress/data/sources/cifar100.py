"""CIFAR-100: 50,000 + 10,000 colour images of 32x32 in 100 fine classes (Krizhevsky 2009), in torchvision's layout."""

from __future__ import annotations

from sdcompress.data.source import Source
from sdcompress.data.sources import _cifar
from sdcompress.data.sources._torchvision import Published
from sdcompress.schema import recipe

__all__ = ["cifar100"]

_PUBLISHED = Published(
    "cifar100",
    "CIFAR100",
    "cifar-100-python",
    {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
)


def cifar100(spec: recipe.Data) -> Source:
    """Return CIFAR-100 with fine labels, and mean and std of its 50,000 training images."""
    return _cifar.source(
        spec,
        _PUBLISHED,
        train=("train",),
        test="test",
        meta="meta",
        kind="fine_",
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    )
