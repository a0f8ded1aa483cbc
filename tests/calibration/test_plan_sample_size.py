"""A plan: what it says must be what calibration then does, and it may look at nothing that certifies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.execution_target import graphs_digest
from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.calibrate import least_samples
from sdcompress.calibration.plan_sample_size import plan
from sdcompress.certification.calibration_split import draw_split, seed_of
from sdcompress.certification.p_values import betting_p_value
from sdcompress.data.samples import ArraySamples, Subset
from sdcompress.errors import DataError, UsageError
from sdcompress.schema import recipe
from sdcompress.tasks.classification import Classification

Build = Callable[..., Path]
WISH = recipe.Calibrate(max_drop=0.05, confidence=0.9)


class Watched(Subset):
    """Remembers which images were asked for."""

    def __init__(self, samples: Any) -> None:
        super().__init__(samples, np.arange(len(samples)))
        self.seen: set[int] = set()

    def examples(self, indices: Any) -> Any:
        self.seen |= set(indices.tolist())
        return super().examples(indices)


def test_it_looks_at_the_tuning_part_only(tiny_artifact: Build, tiny_network: Any) -> None:
    cascade, samples = tiny_artifact(), Watched(tiny_network.samples(2000))
    found = plan(cascade, samples=samples, settings=WISH)
    manifest = open_artifact(cascade).manifest
    parts = draw_split(2000, seed_of(manifest.provenance.data_fingerprint, graphs_digest(manifest)))
    assert samples.seen == set(parts.tuning.tolist())
    assert (found.samples, found.tuning_samples) == (2000, len(parts.tuning)) == (2000, 333)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_its_numbers(tiny_artifact: Build, tiny_network: Any, unlabelled: bool) -> None:
    wish = WISH.model_copy(update={"unlabelled": unlabelled})
    found = plan(tiny_artifact(), samples=tiny_network.samples(2000), settings=wish)
    assert found.loss == ("disagreement" if unlabelled else "accuracy drop")
    assert (
        found.minimum_samples == least_samples(wish, Classification(("a", "b", "c"))) == found.assumed[0].samples_needed
    )
    assert [row.mean_loss for row in found.assumed] == pytest.approx([0.0, 0.0125, 0.025, 0.0375])
    needs = [row.samples_needed for row in found.assumed]
    assert needs == sorted(needs)  # type: ignore[type-var]
    times = [row.mean_ms for row in found.observed]
    assert times == sorted(times, reverse=True)  # type: ignore[type-var]
    assert [row.mean_loss for row in found.observed] == sorted(row.mean_loss for row in found.observed)
    assert found.observed[-1].samples_needed is None  # where the path leaves what can be certified
    assert not unlabelled or all(row.mean_gain == 0 for row in found.observed)


def test_the_least_number_for_a_rare_class_is_that_at_which_calibration_begins(
    tiny_artifact: Build, tiny_network: Any
) -> None:
    """13 samples of a class certify 20 % at 90 %, since 1.2 ** 13 > 10 > 1.2 ** 12; it is a tenth of all samples."""
    wish = recipe.Calibrate(max_drop=0.2, confidence=0.9, group_by="stratum")
    examples = tiny_network.samples(600)
    targets = np.repeat([0, 1, 2], [60, 240, 300])
    samples = ArraySamples(examples.examples(np.arange(600)), targets)
    found = plan(tiny_artifact(), samples=samples, settings=wish)
    assert found.smallest_stratum == "'square', 60 of 600"
    assert found.minimum_samples - found.minimum_samples // 6 == 10 * least(0.2, 0.1)


def least(drop: float, delta: float) -> int:
    return next(count for count in range(1, 99) if betting_p_value(np.zeros(count), drop, delta) <= delta)


def test_without_a_confidence_there_is_nothing_to_plan(tiny_artifact: Build, tiny_network: Any) -> None:
    with pytest.raises(UsageError, match="no confidence") as caught:
        plan(tiny_artifact(), samples=tiny_network.samples(600), settings=recipe.Calibrate())
    assert "--confidence" in caught.value.next_step
    with pytest.raises(DataError, match="49 samples"):
        plan(tiny_artifact(name="b"), samples=tiny_network.samples(49), settings=WISH)
    with pytest.raises(UsageError, match="cascade"):
        plan(tiny_artifact("all"), samples=tiny_network.samples(600), settings=WISH)
