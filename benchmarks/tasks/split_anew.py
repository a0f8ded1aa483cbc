"""Split an image folder anew, by links: enough validation images for a certificate. Classes keep their shares.

    python benchmarks/tasks/split_anew.py DATA OUT

DATA holds train/, val/ and test/ with a folder for each class; OUT gets the same images as 55 % / 32 % / 13 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

SHARES = {"train": 0.55, "val": 0.32, "test": 0.13}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(SHARES, 0)
    for name in sorted({folder.name for folder in chosen.data.glob("*/*") if folder.is_dir()}):
        files = sorted(path for split in SHARES for path in (chosen.data / split / name).iterdir())
        order = rng.permutation(len(files))
        ends = np.round(np.cumsum([*SHARES.values()]) * len(files)).astype(int)
        for split, places in zip(SHARES, np.split(order, ends[:-1]), strict=True):
            (chosen.out / split / name).mkdir(parents=True)
            counts[split] += len(places)
            for place in places:
                file = files[place].resolve()
                (chosen.out / split / name / f"{file.parent.parent.name}-{file.name}").symlink_to(file)
    print(counts)


if __name__ == "__main__":
    main()
