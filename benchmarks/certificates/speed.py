"""What calibration takes once the images have run: 50,000 of them, 5 exits, 1,000 classes.

Of an image calibration keeps a score for each exit but the last, whether each exit is right, and its label; logits are
held for a block of images at a time. So the classes only count where the wish is for each of them.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from record import Record

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.threshold_path import exit_path, threshold_path
from sdcompress.certification.calibration_split import draw_split, tuning_count_for
from sdcompress.certification.certify import certify, kind_of_test, smallest_drop
from sdcompress.certification.power_analysis import least_samples
from sdcompress.schema import recipe

STAGE_MS = (1.0, 1.0, 1.0, 1.0, 1.0)
WISHES = {
    "1 %": {"max_drop": 0.01},
    "drops of 0.25, 0.5, 1 and 2 %": {"max_drop": 0.01, "extra_drops": (0.0025, 0.005, 0.02)},
    "1 %, unlabelled": {"max_drop": 0.01, "unlabelled": True},
    "2 % per exit": {"max_drop": 0.02, "group_by": "exit"},
    "20 % per class": {"max_drop": 0.2, "group_by": "stratum"},  # 50 images of a class cannot say less
}


def population(samples: int, exits: int, classes: int) -> Evidence:
    """Exits that are better the later they come, and righter the surer they are."""
    rng = np.random.default_rng(0)
    ease = rng.normal(size=samples)
    sure = [ease + 0.4 * depth + 1.6 + rng.normal(size=samples) * 0.6 for depth in range(exits)]
    right = [value + rng.normal(size=samples) * 0.5 > 0 for value in sure]
    scores = [1 / (1 + np.exp(-1.5 * np.abs(value))) for value in sure[:-1]]
    labels = rng.permutation(np.arange(samples, dtype=np.int32) % classes)
    return Evidence(np.array(scores, np.float32), 1 - np.array(right, np.float32), labels)


def some(whole: Evidence, rows: np.ndarray) -> Evidence:
    assert whole.strata is not None
    return Evidence(whole.scores[:, rows], whole.loss[:, rows], whole.strata[rows])


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Of CPU time, which other work on the machine does not lengthen."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def once(whole: Evidence, settings: recipe.Calibrate) -> dict[str, float]:
    """One calibration: the path on the tuning part, the tests on the other."""
    parts = draw_split(len(whole), "0" * 64)
    if settings.unlabelled:
        whole = Evidence(whole.scores, (whole.loss != whole.loss[-1]).astype(np.float32), whole.strata)
    tuning, held = some(whole, parts.tuning), some(whole, parts.certify)
    if settings.group_by == "exit":
        least = tuning_count_for(2 * least_samples(*smallest_drop(settings)))
        path_s, path = seconds(lambda: exit_path(tuning.scores, tuning.loss, least))
    else:
        path_s, path = seconds(lambda: threshold_path(tuning.scores, tuning.loss, STAGE_MS))
    test = kind_of_test(unlabelled=settings.unlabelled, binary_loss=True)
    tests_s, levels = seconds(lambda: certify(held, path, settings, test))
    return {
        "path_s": path_s,
        "tests_s": tests_s,
        "whole_s": path_s + tests_s,
        "steps": len(path),
        "tests": sum(len(level.p_values) for level in levels),
        "certified": max(level.certified for level in levels),
    }


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--samples", type=int, default=50_000)
    read.add_argument("--exits", type=int, default=5)
    read.add_argument("--classes", type=int, default=1000)
    read.add_argument("--repeats", type=int, default=5)
    given = read.parse_args()
    record = Record("speed")
    whole = population(given.samples, given.exits, given.classes)
    figures: dict[str, Any] = {}
    for name, wish in WISHES.items():
        settings = recipe.Calibrate(confidence=0.95, **wish)
        runs = [once(whole, settings) for _ in range(given.repeats)]
        figures[name] = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
        print(name, figures[name], flush=True)
    figures["peak_memory_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    print(figures["peak_memory_mib"], "MiB")
    record.write(figures, samples=given.samples, exits=given.exits, classes=given.classes, repeats=given.repeats)


if __name__ == "__main__":
    main()
