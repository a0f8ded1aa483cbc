"""Make what run.py measures, on a machine with torch: one network with three exits, as a cascade and without them.

    python benchmarks/gpu/make_artifacts.py --out ARTIFACTS

Writes ARTIFACTS/checkpoint, and ARTIFACTS/{cascade,single}-{fp32,fp16,int8} at opset 16, which every TensorRT from 8.5
on parses; with --opset 18 also those in fp8, for TensorRT 10 and 11. The weights are those of one short epoch on
digits: they decide nothing about time, and a loss of accuracy in INT8 says nothing here.

    python benchmarks/gpu/make_artifacts.py --out ARTIFACTS --distilled RUN --undistilled RUN

writes ARTIFACTS/distilled-EXIT-{fp32,fp16} and ARTIFACTS/undistilled-{fp32,fp16} of two trainings of the same backbone
on the same data instead, one with a method that has exits and one without.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import sdcompress
from sdcompress.checkpoint import open_checkpoint
from sdcompress.onnx_graph.tensorrt8 import DYNAMO_OPSET
from sdcompress.options import Options


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--out", type=Path, required=True)
    read.add_argument("--model", default="timm:resnet50", help="timm:NAME or cifar:NAME")
    read.add_argument("--image", type=int, default=224, help="pixels of a side")
    read.add_argument("--exits", type=int, default=3, help="before the last one")
    read.add_argument("--opset", type=int, default=16)
    read.add_argument("--distilled", type=Path, help="a training run with exits")
    read.add_argument("--undistilled", type=Path, help="a training run of the same backbone without")
    read.add_argument("--data-dir", type=Path, help="of these two, if elsewhere than in their recipes")
    given = read.parse_args()
    if given.distilled or given.undistilled:
        trained_networks(given)
    else:
        untrained_network(given)
    print(f"next, on the GPU: python benchmarks/gpu/run.py --artifacts {given.out} --out results")


def trained_networks(given: argparse.Namespace) -> None:
    """Each exit of the one, and the other, in fp32 and fp16."""
    if not (given.distilled and given.undistilled):
        raise SystemExit("--distilled and --undistilled belong together")
    sources = {
        f"distilled-{name}": (given.distilled, name) for name in open_checkpoint(given.distilled).network().exit_names
    }
    for out, (run, exit_) in {**sources, "undistilled": (given.undistilled, None)}.items():
        whole, options = given.out / f"{out}-fp32", Options(data_dir=given.data_dir)
        sdcompress.export(
            run, whole, {"opset": given.opset}, options, layout="single", truncate_at=exit_, overwrite=True
        )
        narrow = given.out / f"{out}-fp16"
        sdcompress.quantize(whole, narrow, "fp16", None, options, overwrite=True)


def untrained_network(given: argparse.Namespace) -> None:
    """One network, hardly trained, with exits and without, in every precision."""
    recipe = {
        "name": "gpu",
        "data": {"name": "digits", "train_limit": 64},
        "modality": {"image_size": given.image},
        "model": {"name": given.model},
        "exits": {"count": given.exits, "head": "bottleneck", "width_cap": 64},
        "method": "byot",
        "train": {"epochs": 1, "batch_size": 32, "device": "cpu"},
    }
    trained = sdcompress.train(recipe, given.out / "train").path
    shutil.copytree(trained, given.out / "checkpoint", dirs_exist_ok=True)
    for layout in ("cascade", "single"):
        whole = given.out / f"{layout}-fp32"
        sdcompress.export(trained, whole, {"opset": given.opset}, layout=layout, overwrite=True)  # type: ignore[arg-type]
        for precision, samples in (("fp16", None), ("int8", 64), ("fp8", 64)):
            if precision == "fp8" and given.opset < DYNAMO_OPSET:
                continue
            out = given.out / f"{layout}-{precision}"
            sdcompress.quantize(
                whole, out, precision, {"max_drop": 0.99, "calibration_samples": samples}, overwrite=True
            )


if __name__ == "__main__":
    main()
