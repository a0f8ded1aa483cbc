"""Build an artifact's TensorRT engines on the machine that will run them, check them, and add them to its manifest."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.options import Options
from sdcompress.progress import Progress, no_progress
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import open_engine
from sdcompress.schema.engines import Engines, Plan
from sdcompress.schema.graphs import Precision
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.building.engine_checks import check_engines
from sdcompress.tensorrt.building.hardware import check_graphs, check_hardware, check_memory
from sdcompress.tensorrt.building.interrupt import deferred_interrupt
from sdcompress.tensorrt.building.plan import Builder
from sdcompress.tensorrt.building.plan_check import PlanFacts, check_plan, check_precision
from sdcompress.tensorrt.building.precision_comparison import find_siblings
from sdcompress.tensorrt.building.profiles import describe
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.building.timing_cache import Timings, engines_folder, open_timings, saved_log
from sdcompress.tensorrt.building.validation import find_reference
from sdcompress.tensorrt.nvidia.compatible import same_machine
from sdcompress.tensorrt.nvidia.cuda import first_gpu, load_runtime
from sdcompress.tensorrt.nvidia.gpu_query import Gpu, free_memory, probe_cuda
from sdcompress.tensorrt.nvidia.log import Log
from sdcompress.tensorrt.nvidia.progress import RESOLUTION
from sdcompress.tensorrt.nvidia.trt import TensorRT, is_strongly_typed, load, version_of

__all__ = ["attach", "build_engines"]


def build_engines(
    source: TrainedModel | Path | str,
    out: Path | str,
    settings: BuildSettings | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> Manifest:
    """Write a copy of an artifact with engines for this machine beside its ONNX graphs.

    Engines for other machines stay; earlier ones for this machine are replaced. The GPU is CUDA's first one, which
    CUDA_VISIBLE_DEVICES chooses.

    Args:
        source: an artifact.
        out: folder to write; may be ``source`` with ``overwrite``.
        settings: of the build.
        options: folder of the validation samples. If it is not given and they are missing, the engines are not compared
            on them, with a warning. Progress in thousandths of a plan; then in validation samples; then in rounds of
            timing.
        overwrite: replace an artifact that is there.

    Raises:
        ArtifactError: if the artifact is not intact; or if ``data_dir`` is given, and its recipe cannot be read, or
            onnxruntime cannot run its graphs.
        SetupError: if there is no GPU, one without the graphs' arithmetic, no TensorRT that builds, no
            cuda-bindings, too little memory, or a build fails; or an artifact to be timed against has no engines for
            this machine.
        UsageError: if TensorRT cannot parse a graph, its version lacks a requested option, the graphs are for CPUs, or
            an artifact to be timed against differs in more than its precision.
        DataError: if ``data_dir`` does not hold the data.
        VerificationError: if a plan is not of the requested precision, or too much accuracy is lost.
        ParityError: if the engines do not compute what the checkpoint computes.
        StorageError: if the timing cache that the settings name cannot be written.
        OutputExistsError: if ``out`` holds something that would be lost.
    """
    settings, options = settings or BuildSettings(), options or Options()
    model = open_trained_model(source, options)
    artifact = model.artifact(
        allowed="an artifact: engines are built from its graphs",
        next_step=f"sdcompress export {shlex.quote(str(model.path))} --out ARTIFACT; sdcompress build-engines ARTIFACT "
        f"--out {shlex.quote(str(out))}",
    )
    check_graphs(artifact.manifest)
    gpu = probe_cuda()
    check_hardware(artifact.manifest, gpu, settings.hardware_compatibility)
    check_memory(artifact.manifest, settings.profiles, free=free_memory(), gpu=gpu.name)
    trt, runtime = load(builds=True), load_runtime()  # the engines are run, too
    siblings = find_siblings(artifact.manifest, settings, tensorrt=version_of(trt), gpu=gpu)
    reference = find_reference(model, count=settings.validation_samples)
    timings = open_timings(settings.timing_cache, tensorrt=version_of(trt), gpu=gpu, log=Log())
    with first_gpu(runtime), staged(out, overwrite=overwrite) as folder, saved_log(timings):
        engines = _Build(trt, artifact, settings, gpu, timings, options.progress or no_progress).run(folder)
        attach(artifact, folder, engines, gpu)  # the runtime opens nothing that no manifest lists
        written = open_artifact(folder)
        opened_siblings = [(sibling, _opened(sibling.artifact)) for sibling in siblings]
        checks = check_engines(
            _opened(written),
            written,
            settings,
            reference=reference,
            siblings=opened_siblings,
            progress=options.progress,
        )
        return attach(artifact, folder, engines.model_copy(update=checks), gpu)


def attach(artifact: Artifact, folder: Path, engines: Engines, gpu: Gpu) -> Manifest:
    """Write an artifact with new engines, which replace older ones for the same machine.

    Args:
        artifact: to be copied.
        folder: to write in; the engines' files are there already.
        engines: the new engines.
        gpu: that they were built on.
    """
    others = tuple(
        built for built in artifact.manifest.engines if not same_machine(built, tensorrt=engines.tensorrt, gpu=gpu)
    )
    return rewrite(artifact, folder, engines=(*others, engines))


def _opened(artifact: Artifact) -> Engine:
    # a certificate covers other files, and a comparison needs none
    return open_engine(artifact, backend="tensorrt", device="cuda", allow_uncertified=True)


@dataclass(frozen=True)
class _Build:
    """All plans of an artifact."""

    trt: TensorRT
    artifact: Artifact
    settings: BuildSettings
    gpu: Gpu
    timings: Timings
    progress: Progress

    def run(self, folder: Path) -> Engines:
        """Write plans and log into the folder; parity is checked later."""
        trt, log = self.trt, self.timings.log
        version = version_of(trt)
        folder_name = engines_folder(version, self.gpu)
        (folder / folder_name).mkdir(parents=True)
        builder = Builder(trt, log, self.settings, self.timings.data)
        log.note(self._header_line(version))
        plans, level, plan_facts = [], None, list[tuple[Precision, PlanFacts]]()
        for index, segment in enumerate(self.artifact.manifest.segments):
            name, start = f"{folder_name}/segment-{index}.plan", time.monotonic()
            graph = self.artifact.file(segment).read_bytes()
            with deferred_interrupt() as stopped:
                built = builder.build(graph, segment, report=partial(self._report, index), stopped=stopped)
            self._report(index, RESOLUTION)
            self.timings.keep(builder.timings)
            level = built.level
            (folder / name).write_bytes(built.plan)
            facts = check_plan(
                trt, log, built.plan, segment, batch=self.settings.profiles[0].opt,
                version_compatible=self.settings.version_compatible, file=name,
            )  # fmt: skip
            plan_facts.append((segment.precision, facts))
            log.note(_plan_line(name, segment.file, time.monotonic() - start, facts))
            plans.append(_plan(folder, name, facts))
        check_precision(plan_facts, typed=is_strongly_typed(trt))
        (folder / folder_name / "build.log").write_text("\n".join(log.all_lines) + "\n", encoding="utf-8", newline="\n")
        return Engines(
            gpu=self.gpu.name,
            compute_capability=self.gpu.compute_capability,
            tensorrt=version,
            driver=self.gpu.driver,
            plans=tuple(plans),
            profiles=self.settings.profiles,
            tf32=self.settings.tf32,
            workspace_bytes=self.settings.workspace_bytes,
            builder_optimization_level=level,
            version_compatible=self.settings.version_compatible,
            hardware_compatibility=self.settings.hardware_compatibility,
            log=entry(folder, f"{folder_name}/build.log"),
            parity=(),
        )

    def _report(self, index: int, done: int) -> None:
        self.progress(index * RESOLUTION + done, RESOLUTION * len(self.artifact.manifest.segments))

    def _header_line(self, version: str) -> str:
        gpu, settings = self.gpu, self.settings
        return (
            f"TensorRT {version} on {gpu.name} ({gpu.compute_capability}), driver {gpu.driver or 'unknown'}, CUDA "
            f"{gpu.cuda}: batches {describe(settings.profiles)}, workspace {settings.workspace_bytes} bytes, level "
            f"{settings.level}, TF32 {'on' if settings.tf32 else 'off'}, version-compatible "
            f"{settings.version_compatible}, hardware compatibility {settings.hardware_compatibility}"
        )


def _plan(folder: Path, name: str, facts: PlanFacts) -> Plan:
    listed = entry(folder, name).model_dump()
    return Plan(**listed, device_memory_bytes=facts.device_memory_bytes, layers=facts.layers)


def _plan_line(name: str, graph: str, seconds: float, facts: PlanFacts) -> str:
    layers = ", ".join(f"{number} {kind}" for kind, number in facts.layers.items())
    unknown = "; the inspector gives no types, but the network was strongly typed" if facts.unknown else ""
    return f"{name} from {graph} in {seconds:.1f} s: layers {layers}{unknown}"
