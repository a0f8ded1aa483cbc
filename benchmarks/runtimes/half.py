"""The half-width ResNet-18, trained for a moment: whole and cascade, in fp32 and, unless told otherwise, in uint8."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "alternatives"))  # nets.py

import sdcompress

RECIPE = {
    "data": {"name": "digits", "train_limit": 256},
    "model": {"name": "nets:half"},
    "exits": {"count": 3, "head": "bottleneck", "width_cap": 256},
    "method": "byot",
    "train": {"epochs": 1, "batch_size": 64, "device": "cpu"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=32, help="of the images")
    parser.add_argument("--fp32", action="store_true", help="leave uint8 out")
    given = parser.parse_args()
    run = sdcompress.train({**RECIPE, "modality": {"image_size": given.size}}, given.folder / "run").path
    for name, layout in (("whole", "single"), ("cascade", "cascade")):
        sdcompress.export(run, given.folder / name, layout=layout)  # type: ignore[arg-type]
        if not given.fp32:  # a network that has learnt nothing may lose what it likes
            sdcompress.quantize(given.folder / name, given.folder / f"{name}-uint8", "uint8", {"max_drop": 0.5})


if __name__ == "__main__":
    main()
