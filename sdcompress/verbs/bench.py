"""bench: measure the latency of artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sdcompress import recipes
from sdcompress.benchmarking.candidate import bench_originals, bench_samples
from sdcompress.benchmarking.run import bench as run_bench
from sdcompress.errors import UsageError
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.options import Options
from sdcompress.schema.recipe import Bench
from sdcompress.schema.report import BenchReport
from sdcompress.verbs._types import Overrides, Source

__all__ = ["bench"]


def bench(
    sources: Sequence[Source],
    settings: Bench | Overrides | None = None,
    options: Options | None = None,
    *,
    samples: Literal["test", "golden"] = "test",
    names: Sequence[str] | None = None,
    reference: str | None = None,
) -> BenchReport:
    """Measure the latency of artifacts on this machine in interleaved rounds.

    Args:
        sources: artifacts; the first is the reference unless ``reference`` names another.
        settings: scenarios, durations; threads, backend and device unless the options set them.
        options: folder of the data; progress in rounds.
        samples: the test split of the first artifact's data, or its golden samples, which are in its folder.
        names: in the result; default: the folders' names.
        reference: the name of the artifact that the others are compared with.

    Raises:
        ArtifactError, DataError, UsageError: an artifact or the data is not intact, or no artifact is given.
    """
    if not sources:
        raise UsageError("No artifact was given.", next_step="name at least one artifact folder")
    options = options or Options()
    overrides = {"threads": options.threads, "backend": options.backend, "device": options.device}
    section = recipes.override(
        recipes.override(Bench(), settings), {k: v for k, v in overrides.items() if v is not None}
    )
    artifacts = [open_trained_model(source).artifact() for source in sources]
    if samples == "golden":
        golden, data = artifacts[0].golden(), f"golden samples of {artifacts[0].path}"
        examples, targets, originals = golden.examples, golden.targets, None
    else:
        dataset = open_trained_model(artifacts[0], options).dataset()
        (examples, targets), data = bench_samples(dataset.test), f"test split of {dataset.name}"
        originals = bench_originals(dataset.test, dataset.modality)
    return run_bench(
        artifacts,
        examples=examples,
        targets=targets,
        originals=originals,
        settings=section,
        names=names,
        reference=reference,
        source=data,
        command=options.command,
        allow_uncertified=options.allow_uncertified,
        progress=options.progress,
    )
