"""Build an artifact's TensorRT engines on the machine that will run them, prove them, and list them in its manifest."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.options import Options
from sdcompress.progress import Progress, silent
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import open_engine
from sdcompress.schema.engines import Engines, Plan
from sdcompress.schema.graphs import Precision
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.building.check import Checked, check_plan, check_precision
from sdcompress.tensorrt.building.checks import prove
from sdcompress.tensorrt.building.hardware import check_graphs, check_hardware
from sdcompress.tensorrt.building.interrupt import noted
from sdcompress.tensorrt.building.memory import check_memory
from sdcompress.tensorrt.building.plan import Builder
from sdcompress.tensorrt.building.precision_comparison import find_siblings
from sdcompress.tensorrt.building.profiles import describe
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.building.timing_cache import Timings, engines_folder, log_kept, open_timings
from sdcompress.tensorrt.building.validation import find_reference
from sdcompress.tensorrt.nvidia.compatible import same_machine
from sdcompress.tensorrt.nvidia.log import Log
from sdcompress.tensorrt.nvidia.probe import Gpu, free_memory, probe_cuda
from sdcompress.tensorrt.nvidia.progress import PARTS
from sdcompress.tensorrt.nvidia.trt import TensorRT, is_typed, load, version_of

__all__ = ["attach", "build_engines"]


def build_engines(
    source: TrainedModel | Path | str,
    out: Path | str,
    settings: BuildSettings | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> Manifest:
    """Write a copy of an artifact that also holds engines for this machine; its ONNX graphs stay beside them.

    Engines for other machines are kept; those for this one, built before, are replaced. The GPU is CUDA's first one,
    which CUDA_VISIBLE_DEVICES chooses.

    Args:
        source: an artifact.
        out: folder to write; may be ``source`` with ``overwrite``.
        settings: of the build.
        options: where the validation images lie: where that is not given and they are not there, the engines are not
            held against them, with a warning. Progress in thousandths of a plan; then in validation images; then in
            rounds of timing.
        overwrite: replace an artifact that is there.

    Raises:
        ArtifactError: if the artifact is not intact; or if ``data_dir`` is given, and its recipe cannot be read, or
            onnxruntime cannot run its graphs.
        SetupError: if there is no GPU, one without the graphs' arithmetic, no TensorRT that builds, too little memory,
            or a build fails; or an artifact to be timed against has no engines for this machine.
        UsageError: if TensorRT cannot parse a graph, its version lacks what is asked for, the graphs are for CPUs, or
            an artifact to be timed against differs in more than its precision.
        DataError: if ``data_dir`` does not hold the data.
        VerificationError: if a plan is not of the precision that was asked for, or too much accuracy is lost.
        ParityError: if the engines do not compute what the checkpoint computes.
        StorageError: if the timing cache that the settings name cannot be written.
        OutputExistsError: if ``out`` holds something that would be lost.
    """
    settings, options = settings or BuildSettings(), options or Options()
    model = open_trained_model(source, options)
    artifact = model.artifact(
        allowed="an artifact: engines are built from its graphs",
        next_step=f"sdcompress export {model.path} --out ARTIFACT; sdcompress build-engines ARTIFACT --out {out}",
    )
    check_graphs(artifact.manifest)
    gpu = probe_cuda()
    check_hardware(artifact.manifest, gpu, settings.hardware_compatibility)
    check_memory(artifact.manifest, settings.profiles, free=free_memory(), gpu=gpu.name)
    trt = load(builds=True)
    siblings = find_siblings(artifact.manifest, settings, tensorrt=version_of(trt), gpu=gpu)
    reference = find_reference(model, count=settings.validation_images)
    timings = open_timings(settings.timing_cache, tensorrt=version_of(trt), gpu=gpu, log=Log())
    with staged(out, overwrite=overwrite) as folder, log_kept(timings):
        made = _Build(trt, artifact, settings, gpu, timings, options.progress or silent).run(folder)
        attach(artifact, folder, made, gpu)  # the runtime opens nothing that no manifest lists
        written = open_artifact(folder)
        others = [(sibling, _opened(sibling.artifact)) for sibling in siblings]
        found = prove(
            _opened(written), written, settings, reference=reference, siblings=others, progress=options.progress
        )
        return attach(artifact, folder, made.model_copy(update=found), gpu)


def attach(artifact: Artifact, folder: Path, made: Engines, gpu: Gpu) -> Manifest:
    """Write an artifact with engines in it: those for other machines and these, in the place of older ones for theirs.

    Args:
        artifact: to be copied.
        folder: to write in; the engines' files are there already.
        made: the engines.
        gpu: that they were built on.
    """
    others = tuple(
        built for built in artifact.manifest.engines if not same_machine(built, tensorrt=made.tensorrt, gpu=gpu)
    )
    return rewrite(artifact, folder, engines=(*others, made))


def _opened(artifact: Artifact) -> Engine:
    # a certificate is about other files: whether it covers these is not asked for a comparison
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
        """Write plans and log into the folder; the parity is still to come."""
        trt, log = self.trt, self.timings.log
        version = version_of(trt)
        place = engines_folder(version, self.gpu)
        (folder / place).mkdir(parents=True)
        builder = Builder(trt, log, self.settings, self.timings.data)
        log.note(self._said(version))
        plans, level, found = [], None, list[tuple[Precision, Checked]]()
        for index, segment in enumerate(self.artifact.manifest.segments):
            name, began = f"{place}/segment-{index}.plan", time.monotonic()
            graph = self.artifact.file(segment).read_bytes()
            with noted() as stopped:
                built = builder.build(graph, segment, tell=partial(self._tell, index), stopped=stopped)
            self._tell(index, PARTS)
            self.timings.keep(builder.timings)
            level = built.level
            (folder / name).write_bytes(built.plan)
            checked = check_plan(
                trt, log, built.plan, segment, batch=self.settings.profiles[0].opt,
                version_compatible=self.settings.version_compatible, file=name,
            )  # fmt: skip
            found.append((segment.precision, checked))
            log.note(_told(name, segment.file, time.monotonic() - began, checked))
            plans.append(_plan(folder, name, checked))
        check_precision(found, typed=is_typed(trt))
        (folder / place / "build.log").write_text("\n".join(log.everything) + "\n", encoding="utf-8", newline="\n")
        return Engines(
            gpu=self.gpu.name,
            compute_capability=self.gpu.compute_capability,
            tensorrt=version,
            driver=self.gpu.driver,
            plans=tuple(plans),
            profiles=self.settings.profiles,
            tf32=self.settings.tf32,
            workspace_bytes=self.settings.workspace_bytes,
            level=level,
            version_compatible=self.settings.version_compatible,
            hardware_compatibility=self.settings.hardware_compatibility,
            log=entry(folder, f"{place}/build.log"),
            parity=(),
        )

    def _tell(self, index: int, done: int) -> None:
        self.progress(index * PARTS + done, PARTS * len(self.artifact.manifest.segments))

    def _said(self, version: str) -> str:
        gpu, wish = self.gpu, self.settings
        return (
            f"TensorRT {version} on {gpu.name} ({gpu.compute_capability}), driver {gpu.driver or 'unknown'}, CUDA "
            f"{gpu.cuda}: batches {describe(wish.profiles)}, workspace {wish.workspace_bytes} bytes, level "
            f"{wish.level}, TF32 {'on' if wish.tf32 else 'off'}, version-compatible {wish.version_compatible}, "
            f"hardware compatibility {wish.hardware_compatibility}"
        )


def _plan(folder: Path, name: str, checked: Checked) -> Plan:
    listed = entry(folder, name).model_dump()
    return Plan(**listed, device_memory_bytes=checked.device_memory_bytes, layers=checked.layers)


def _told(name: str, graph: str, seconds: float, checked: Checked) -> str:
    layers = ", ".join(f"{number} {kind}" for kind, number in checked.layers.items())
    unknown = "; the inspector does not say their types, the network was strongly typed" if checked.unknown else ""
    return f"{name} from {graph} in {seconds:.1f} s: layers {layers}{unknown}"
