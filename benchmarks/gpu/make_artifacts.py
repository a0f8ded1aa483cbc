"""Make what run.py measures, on a machine with torch: one network with three exits, as a cascade and without them.

    python benchmarks/gpu/make_artifacts.py --out ARTIFACTS

Writes ARTIFACTS/{checkpoint,cascade-fp32,single-fp32}. The weights are those of one short epoch on digits: they decide
nothing about time. Artifacts of other precisions, as cascade-fp16 and single-fp16 (or -int8), are measured too where
they lie beside these. TensorRT 8.5 parses opset 17 at most: --opset 16, where the export takes it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sdcompress import api


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--out", type=Path, required=True)
    read.add_argument("--model", default="timm:resnet50", help="timm:NAME or cifar:NAME")
    read.add_argument("--image", type=int, default=224, help="pixels of a side")
    read.add_argument("--exits", type=int, default=3, help="before the last one")
    read.add_argument("--opset", type=int, help="default: the exporter's")
    given = read.parse_args()
    recipe = {
        "name": "gpu",
        "data": {"name": "digits", "image_size": given.image, "train_limit": 64},
        "model": {"name": given.model},
        "exits": {"auto": given.exits, "head": "bottleneck", "width_cap": 64},
        "method": "byot",
        "train": {"epochs": 1, "batch_size": 32, "accelerator": "cpu"},
    }
    trained = api.train(recipe, given.out / "train").path
    shutil.copytree(trained, given.out / "checkpoint", dirs_exist_ok=True)
    for layout in ("cascade", "single"):
        api.export(trained, given.out / f"{layout}-fp32", layout=layout, opset=given.opset, overwrite=True)  # type: ignore[arg-type]
    print(f"next, on the GPU: python benchmarks/gpu/run.py --artifacts {given.out} --out results")


if __name__ == "__main__":
    main()
