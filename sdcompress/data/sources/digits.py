"""Handwritten digits, 1,797 grey images of 8x8, shown at 32x32; part of scikit-learn, nothing to download.

The test set of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998). It has no split of its
own; ``sdcompress.data.load`` holds out a fifth for testing, always the same.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from sdcompress.data.images import image_source, preprocessing
from sdcompress.data.source import Source
from sdcompress.schema import recipe

__all__ = ["digits"]

_SIDE = 32


def digits(spec: recipe.Data) -> Source:
    """The digits; 0..16 becomes 0..255, bilinear to ``spec.image_size``."""
    # mean and std of all images at 32x32
    preprocess = preprocessing(spec, side=_SIDE, mean=(0.3055,), std=(0.3235,))
    values, labels = load_digits(return_X_y=True)
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return image_source(tuple(str(digit) for digit in range(10)), preprocess, (images, labels))
