"""By how many degrees is a garment turned? Fashion-MNIST, each image turned by an angle of [-45, 45]: a regression."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdcompress.data.image_arrays import Preprocess, image_source
from sdcompress.data.samples import Samples
from sdcompress.data.source import Source
from sdcompress.data.sources.fashion_mnist import fashion_mnist
from sdcompress.schema import recipe

__all__ = ["turn"]

_MOST = 45.0
_TRAIN = 15_000  # of the 60,000; validation is held out of them


def turn(spec: recipe.Data) -> Source:
    """Return uint8 images [N, 28, 28, 1] and their angles in degrees, float32 [N, 1]; the same for every seed."""
    source = fashion_mnist(spec)
    assert source.test is not None
    preprocess = Preprocess.square(28, mean=(0.2860,), std=(0.3530,))
    train, test = _turned(source.train, _TRAIN, 0), _turned(source.test, len(source.test), 1)
    return image_source(("degrees",), preprocess, train, test, task="regression")


def _turned(samples: Samples, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    angles = np.random.default_rng(seed).uniform(-_MOST, _MOST, count).astype(np.float32)
    images = samples.examples(np.arange(count))[..., 0]
    turned = [
        np.asarray(Image.fromarray(image).rotate(float(angle), Image.Resampling.BILINEAR))
        for image, angle in zip(images, angles, strict=True)
    ]
    return np.stack(turned)[..., None], angles[:, None]
