"""Fashion-MNIST: 60,000 + 10,000 grey images of 28x28, clothes (Xiao et al. 2017), in torchvision's layout."""

from __future__ import annotations

from sdcompress.data.source import Source
from sdcompress.data.sources import _idx
from sdcompress.data.sources._torchvision import Published
from sdcompress.schema import recipe

__all__ = ["fashion_mnist"]

_PUBLISHED = Published(
    "fashion_mnist",
    "FashionMNIST",
    "FashionMNIST/raw",
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)
_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def fashion_mnist(spec: recipe.Data) -> Source:
    """Return Fashion-MNIST, with mean and std of its 60,000 training images."""
    return _idx.source(spec, _PUBLISHED, classes=_CLASSES, mean=0.2860, std=0.3530)
