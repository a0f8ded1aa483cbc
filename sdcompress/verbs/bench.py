"""bench: measure the latency of artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from sdcompress import recipes, registry
from sdcompress.artifact.read import Artifact
from sdcompress.artifact.write import staged
from sdcompress.benchmarking.backend_times import backend_times, write_backend_times
from sdcompress.benchmarking.candidate import bench_originals, bench_samples
from sdcompress.benchmarking.run import bench as run_bench
from sdcompress.errors import SdcompressError, SetupError, UsageError
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.options import EngineOptions, Options
from sdcompress.runtime.choose_backend import ROOM, USUAL
from sdcompress.runtime.open import open_cascade
from sdcompress.schema.recipe import Bench
from sdcompress.schema.report import BenchReport
from sdcompress.tasks import Array
from sdcompress.verbs._types import Overrides, Source
from sdcompress.verification.verify import check_outputs

__all__ = ["bench"]

_ALL = "all"


def bench(
    sources: Sequence[Source],
    settings: Bench | Overrides | None = None,
    options: Options | None = None,
    *,
    samples: Literal["test", "golden"] = "test",
    names: Sequence[str] | None = None,
    reference: str | None = None,
    record: Path | str | None = None,
    overwrite: bool = False,
) -> BenchReport:
    """Measure the latency of artifacts on this machine in interleaved rounds.

    Args:
        sources: artifacts; the first is the reference unless ``reference`` names another.
        settings: scenarios, durations; threads, backend and device unless the options set them. Several backends are
            measured in turn, after the outputs of each were compared with the checkpoint's; "all" leaves out those
            that are not installed, give other outputs or are not covered by a certificate, and says why.
        options: folder of the data; progress in rounds.
        samples: the test split of the first artifact's data, or its golden samples, which are in its folder.
        names: in the result; default: the folders' names.
        reference: the name of the artifact that the others are compared with.
        record: folder of a copy of the artifact, with the times of the backends in its manifest; None: none.
        overwrite: replace an artifact in that folder, which may be the measured one.

    Raises:
        ArtifactError, DataError, UsageError: an artifact or the data is not intact, or no artifact is given, or several
            with ``record``.
        ParityError: a backend other than onnxruntime gives other outputs than the checkpoint.
        OutputExistsError, StorageError: if ``record`` cannot be written.
    """
    if not sources:
        raise UsageError("No artifact was given.", next_step="name at least one artifact folder")
    options = options or Options()
    overrides = {"threads": options.threads, "backend": options.backend, "device": options.device}
    section = recipes.override(
        recipes.override(Bench(), settings), {k: v for k, v in overrides.items() if v is not None}
    )
    artifacts = [open_trained_model(source).artifact() for source in sources]
    section, left_out = _checked_backends(artifacts, section, allow_uncertified=options.allow_uncertified)
    if record is not None and (len(artifacts) > 1 or "single-stream" not in section.scenarios):
        raise UsageError(
            f"Times of {len(artifacts)} artifacts in the scenarios {', '.join(section.scenarios)} cannot be recorded.",
            allowed="one artifact, with the scenario single-stream",
            next_step="name one artifact with --record, and leave --scenario out",
        )
    # before anything is read and measured, because the folder may be taken
    with nullcontext() if record is None else staged(record, overwrite=overwrite) as folder:
        examples, targets, originals, data = _examples(artifacts[0], samples, options)
        report = run_bench(
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
        ).model_copy(update={"left_out": left_out})
        if folder is not None:
            write_backend_times(artifacts[0], folder, backend_times(report))
    return report


def _examples(
    artifact: Artifact, samples: Literal["test", "golden"], options: Options
) -> tuple[Any, Array, list[Any] | None, str]:
    """Return examples, their targets, raw ones if they are kept, and where they are from."""
    if samples == "golden":
        golden = artifact.golden()
        return golden.examples, golden.targets, None, f"golden samples of {artifact.path}"
    dataset = open_trained_model(artifact, options).dataset()
    examples, targets = bench_samples(dataset.test)
    return examples, targets, bench_originals(dataset.test, dataset.modality), f"test split of {dataset.name}"


def _checked_backends(
    artifacts: Sequence[Artifact], section: Bench, *, allow_uncertified: bool
) -> tuple[Bench, dict[str, str]]:
    """Return the section with the backends that run all artifacts as they should, and why others of "all" do not."""
    if _ALL not in section.backends:
        for backend in section.backends:
            _check_backend(artifacts, section, backend, allow_uncertified=allow_uncertified)
        return section, {}
    known = sorted(registry.names(ROOM), key=lambda name: name != USUAL)
    problems = {name: _problem(artifacts, section, name, allow_uncertified=allow_uncertified) for name in known}
    usable = [name for name, problem in problems.items() if not problem]
    left_out = {name: problem for name, problem in problems.items() if problem}
    if not usable:
        raise SetupError(
            f"No backend can be measured: {' '.join(left_out.values())}",
            allowed="at least one backend that runs the artifacts",
            next_step="name one with --backend to see what it lacks",
        )
    return section.model_copy(update={"backend": ",".join(usable)}), left_out


def _problem(artifacts: Sequence[Artifact], section: Bench, backend: str, *, allow_uncertified: bool) -> str:
    """Return why a backend is not measured; empty if it is."""
    try:
        _check_backend(artifacts, section, backend, allow_uncertified=allow_uncertified)
    except SdcompressError as error:
        return error.problem
    return ""


def _check_backend(artifacts: Sequence[Artifact], section: Bench, backend: str, *, allow_uncertified: bool) -> None:
    """Refuse a backend that does not run the artifacts, or gives other outputs than their checkpoints."""
    if backend == USUAL and _ALL not in section.backends:
        return  # its outputs are those that the export was compared with
    options = EngineOptions(backend, section.threads, section.device, allow_uncertified)
    for artifact in artifacts:
        check_outputs(artifact, open_cascade(artifact, options))
