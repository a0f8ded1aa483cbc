"""CIFAR-10: 50,000 + 10,000 colour images of 32x32 in 10 classes (Krizhevsky 2009), in torchvision's layout."""

from __future__ import annotations

from sdcompress.data.source import Source
from sdcompress.data.sources import _cifar
from sdcompress.data.sources._torchvision import Published
from sdcompress.schema import recipe

__all__ = ["cifar10"]

_TRAIN = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
_TEST = {"test_batch": "40351d587109b95175f43aff81a1287e"}
_META = {"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"}
_PUBLISHED = Published("cifar10", "CIFAR10", "cifar-10-batches-py", {**_TRAIN, **_TEST, **_META})


def cifar10(spec: recipe.Data) -> Source:
    """Return CIFAR-10, with the usual mean and std of its training images."""
    return _cifar.source(
        spec,
        _PUBLISHED,
        train=tuple(_TRAIN),
        test="test_batch",
        meta="batches.meta",
        kind="",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    )
