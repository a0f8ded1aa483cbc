"""CamVid: road scenes with a mask of 11 classes each, 480x360, segmentation (Brostow et al. 2009).

The files lie as in SegNet's repository, 367 + 101 + 233 images and their masks:

    data.dir/CamVid/train/*.png        also without CamVid/ above; val/ and test/ likewise
    data.dir/CamVid/trainannot/*.png   masks by the images' names, 0..10 for the classes, 11 for void

Images may have any format; masks are PNG. Images of a drive resemble each other, and the three splits share drives.
"""

from __future__ import annotations

from sdcompress.data.source import Source, data_folder
from sdcompress.data.sources._camvid import CLASSES, MEAN, STD, root_of
from sdcompress.data.sources._masks import VOID, MaskCoding, images_in, mask_source, pairs_of
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.schema import recipe

__all__ = ["camvid"]

_HEIGHT, _WIDTH = 360, 480


def camvid(spec: recipe.Data) -> Source:
    """Return the images at their own size unless the recipe sets another, with mean and std of the training images.

    Raises:
        RecipeError: if ``data.exclude`` names an image that is not there.
        DataError: if a folder or a mask is missing.
    """
    root = root_of(data_folder(spec), "camvid")
    modality = Image.of(Preprocess(channels=3, resize=(_HEIGHT, _WIDTH), mean=MEAN, std=STD))
    values = {k: k for k in range(len(CLASSES))} | {len(CLASSES): VOID, VOID: VOID}
    pairs = {}
    for split in ("train", "val", "test"):
        images, excluded = images_in(root / split), [root / name for name in spec.exclude]
        pairs[split] = pairs_of(images, root / split, root / f"{split}annot", excluded)
    return mask_source(root, pairs, MaskCoding(CLASSES, values), modality, spec.exclude)
