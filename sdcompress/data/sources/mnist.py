"""MNIST: 60,000 + 10,000 grey images of 28x28, the digits (LeCun et al. 1998), in torchvision's layout."""

from __future__ import annotations

from sdcompress.data.source import Source
from sdcompress.data.sources import _idx
from sdcompress.data.sources._torchvision import Published
from sdcompress.schema import recipe

__all__ = ["mnist"]

_PUBLISHED = Published(
    "mnist",
    "MNIST",
    "MNIST/raw",
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)


def mnist(spec: recipe.Data) -> Source:
    """Return MNIST, with the usual mean and std of its training images."""
    return _idx.source(spec, _PUBLISHED, classes=tuple(str(digit) for digit in range(10)), mean=0.1307, std=0.3081)
