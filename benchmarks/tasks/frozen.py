"""Heads on a frozen backbone: a whole training of 10 epochs with what heads see kept, against one without. One thread.

    PYTHONPATH=. python benchmarks/tasks/frozen.py DATA WEIGHTS

DATA is the clothing data set, WEIGHTS the file that the recipe "clothing" names. Each run is a whole
``sdcompress train``: images, building, the pass of the backbone, steps of heads, validation, checkpoints. The runs
take turns; the kept features are thrown away before each. On a busy machine read the processor times.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "speed"))
from record import Record

from sdcompress import recipes
from sdcompress.training.run import train


def seconds(settings: list[str], keep: float) -> tuple[float, float, str]:
    """Wall time and processor time of a training in seconds, and the SHA-256 of its weights."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        recipe = recipes.read("clothing", [*settings, f"train.feature_cache_gb={keep}"])
        wall, processor = time.perf_counter(), time.process_time()
        done = train(recipe, Path(folder) / "run", on_start=print)
        return time.perf_counter() - wall, time.process_time() - processor, done.weights_sha256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--samples", type=int, default=640, help="training images")
    parser.add_argument("--head", default="bottleneck")
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    settings = [
        f"data.dir={chosen.data}",
        f"model.weights={chosen.weights}",
        f"modality.image_size={chosen.size}",
        f"data.train_limit={chosen.samples}",
        f"exits.head={chosen.head}",
        "train.epochs=10",
        "train.threads=1",
        "train.device=cpu",
        "seed=0",
    ]
    record = Record(Path(__file__).resolve().parent, "frozen")
    pairs = [(seconds(settings, 8), seconds(settings, 0)) for _ in range(chosen.rounds)]
    record.write(
        {
            **{
                name: {
                    "kept_s": [round(kept[at], 1) for kept, _ in pairs],
                    "without_s": [round(without[at], 1) for _, without in pairs],
                    "times_faster": [round(without[at] / kept[at], 2) for kept, without in pairs],
                }
                for at, name in enumerate(("wall", "processor"))
            },
            "same_weights": len({one[2] for pair in pairs for one in pair}) == 1,
        },
        size=chosen.size,
        samples=chosen.samples,
        head=chosen.head,
        epochs=10,
        threads=1,
        seed=0,
    )


if __name__ == "__main__":
    main()
