"""Handwritten digits, 1,797 grey images of 8x8, resized to 32x32; part of scikit-learn, without a download.

The test set of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998). It has no
test split; ``sdcompress.data.load`` always holds out the same fifth for testing.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from sdcompress.data.image_arrays import Preprocess, image_source
from sdcompress.data.source import Source
from sdcompress.schema import recipe

__all__ = ["digits"]

_SIDE = 32


def digits(spec: recipe.Data) -> Source:  # noqa: ARG001 - it lies in scikit-learn
    """Return the digits, scaled from 0..16 to 0..255, bilinear to 32 pixels."""
    # mean and std of all images at 32x32
    preprocess = Preprocess.square(_SIDE, mean=(0.3055,), std=(0.3235,))
    values, labels = load_digits(return_X_y=True)
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return image_source(tuple(str(digit) for digit in range(10)), preprocess, (images, labels))
