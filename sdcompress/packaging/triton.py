"""NVIDIA Triton: a model repository, with the exit policy as a BLS model, an iterative sequence or one graph."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sdcompress.artifact.execution_target import ExecutionTarget, one_graph_agrees, plans_digest
from sdcompress.artifact.read import Artifact
from sdcompress.errors import CertificateError, UsageError
from sdcompress.packaging._base import ModelName, Target, model_name
from sdcompress.packaging._triton_config import LABELS, Batching, Serving, config_pbtxt, port
from sdcompress.packaging._triton_program import CANDIDATES, EXIT_INDEX_TENSOR, cascade_program
from sdcompress.printable import printable
from sdcompress.schema.graphs import OUTPUTS, Dtype, Segment, Tensor
from sdcompress.schema.manifest import Engines

__all__ = ["Triton"]

Form = Literal["bls", "sequence", "graph"]

_GRAPH, _PLAN, _PROGRAM = "model.onnx", "model.plan", "model.py"
# Triton's default of 1 s is too short: a request whose step takes longer is then lost, and its client waits forever
_SEQUENCE_IDLE_MICROSECONDS = 600_000_000
_OF_OLDEST = ("preferred_batch_size", "max_queue_delay_microseconds")
# TensorRT computes these in another type before version 10, inputs and outputs of engines too
_NARROWED: dict[Dtype, Dtype] = {"int64": "int32", "float64": "float32"}


class Triton(Target):
    """Write a Triton model repository (triton-inference-server/server, docs/user_guide/model_repository.md).

    An artifact of one graph becomes one model. A cascade becomes a model for each segment, and one that clients call:
    a program for the python backend that runs the segments and drops rows that exit. A graph that exits by itself
    becomes one model.

    The onnxruntime backend is the default. The configuration for the tensorrt backend, and for a GPU, has been parsed
    but never run: no GPU was at hand.
    """

    name: ModelName | None = Field(
        None, description="of the model that clients call; null: the name of the artifact's recipe"
    )
    version: PositiveInt = Field(1, description="name of the folder of the files")
    form: Form | None = Field(
        None,
        description="of a cascade: 'bls', a program that runs whole batches through the segments; 'sequence', the same "
        "step by step, so that samples join others at each segment, one sample a request; 'graph', the one graph. "
        "null: 'graph' where the artifact has one that its certificate, if any, allows; else 'bls'",
    )
    backend: Literal["onnxruntime", "tensorrt"] = Field("onnxruntime", description="of the graphs or the engines")
    device: Literal["cpu", "cuda"] | None = Field(None, description="null: cuda with tensorrt, else cpu")
    gpu: str | None = Field(None, description="tensorrt: whose engines, as the manifest names it; null: the only ones")
    max_batch_size: PositiveInt = Field(32, description="most rows of a batch; with tensorrt at most the engines' own")
    preferred_batch_size: tuple[PositiveInt, ...] = Field((), description="batch sizes that wait for no more requests")
    max_queue_delay_microseconds: NonNegativeInt = Field(500, description="how long a request waits for others")
    max_queue_size: NonNegativeInt = Field(
        0, description="requests that may wait; more are refused; 0: any; not for sequence"
    )
    instances: PositiveInt = Field(1, description="of the program, or of a single model, that run at once")
    intra_op_threads: PositiveInt | None = Field(None, description="of ONNX Runtime in each model; null: its default")

    @model_validator(mode="after")
    def _fits_together(self) -> Triton:
        if self.backend == "tensorrt" and self.device == "cpu":
            raise ValueError("tensorrt needs device=cuda")
        if self.gpu is not None and self.backend != "tensorrt":
            raise ValueError("gpu chooses engines: it needs backend=tensorrt")
        if any(size > self.max_batch_size for size in self.preferred_batch_size):
            raise ValueError("a preferred_batch_size is above max_batch_size")
        if self.form == "sequence" and self.max_queue_size:
            raise ValueError("max_queue_size is of batches; Triton has no such limit for form=sequence")
        return self

    def execution_target(self, artifact: Artifact) -> ExecutionTarget:
        """Return backend, device and engine plans; see ``Target``.

        Raises:
            CertificateError: if the one graph shall answer in the place of segments that a certificate covers, and may
                not.
        """
        if self.form == "graph" and not _may_answer(artifact):
            raise CertificateError(
                f"The certificate of '{artifact.path}' covers its segments, and the one graph rounds otherwise.",
                allowed="form=bls or form=sequence, which run the segments",
                next_step="leave the form out; or package the graph without a guarantee: --allow-uncertified",
            )
        plans = plans_digest(self.engines(artifact)) if self.backend == "tensorrt" else None
        return ExecutionTarget(self.backend, self.runs_on, plans)

    def applies_policy(self, artifact: Artifact) -> bool:
        """Return whether it is a cascade; the layouts single and all give the outputs of their exits."""
        return len(artifact.manifest.segments) > 1

    def write(self, artifact: Artifact, folder: Path) -> tuple[str, ...]:
        """Write one folder for each model; see ``Target``."""
        return _Repository(self, artifact, folder).write()

    def next_steps(self, out: Path) -> tuple[str, ...]:
        """Return the command that starts Triton."""
        option = " --backend-config=tensorrt,version-compatible=true" if self.backend == "tensorrt" else ""
        return (
            f"tritonserver --model-repository={shlex.quote(str(out.resolve()))}{option}",
            *(("the option is for version-compatible engines only",) if option else ()),
        )

    @property
    def runs_on(self) -> str:
        """Return the device."""
        return self.device or ("cuda" if self.backend == "tensorrt" else "cpu")

    def engines(self, artifact: Artifact) -> Engines:
        """Return the engines to package.

        Raises:
            UsageError: if the artifact has none for this GPU, or several.
        """
        built = artifact.manifest.engines
        chosen = [engines for engines in built if self.gpu in {None, engines.gpu}]
        if len(chosen) != 1:
            raise UsageError(
                f"'{artifact.path}' holds {len(chosen)} sets of TensorRT engines"
                + (f" for the GPU '{self.gpu}'." if self.gpu else "."),
                allowed="one set: " + ("; ".join(f"gpu={engines.gpu}" for engines in built) or "(none)"),
                next_step="choose one with --set gpu=NAME"
                if built
                else "sdcompress build-engines ARTIFACT --out FOLDER on the machine that will run them",
            )
        return chosen[0]


class _Repository:
    """Writes the models of an artifact.

    Args:
        settings: of the target.
        artifact: opened.
        folder: of the repository.
    """

    def __init__(self, settings: Triton, artifact: Artifact, folder: Path) -> None:
        self._settings, self._artifact, self._folder = settings, artifact, folder
        self._manifest = artifact.manifest
        self._name = settings.name or model_name(artifact)
        self._engines = settings.engines(artifact) if settings.backend == "tensorrt" else None
        narrowed = self._engines is not None and int(self._engines.tensorrt.partition(".")[0]) < 10
        self._dtypes = _NARROWED if narrowed else {}
        self._most = settings.max_batch_size
        if self._engines is not None:
            self._most = min(self._most, self._engines.profiles[-1].max)
            if (least := self._engines.profiles[0].min) > 1:  # Triton rounds no batch up
                raise UsageError(
                    f"The engines of '{artifact.path}' take batches from {least} on; Triton sends smaller ones too.",
                    allowed="engines for batches from 1 on",
                    next_step="build them with --batch 1:8:32, or --batch 1:1:1,2:8:32",
                )
        if above := [size for size in settings.preferred_batch_size if size > self._most]:
            raise UsageError(
                f"The engines of '{artifact.path}' take batches up to {self._most}, and not {max(above)}.",
                allowed=f"preferred_batch_size up to {self._most}",
                next_step="choose smaller ones, or build engines with a larger --batch",
            )

    def write(self) -> tuple[str, ...]:
        """Write all models and return their names."""
        form = self._form()
        if form in {"bls", "sequence"}:
            return self._cascade(form)
        graph = self._manifest.one_graph if form == "graph" else self._manifest.segments[0]
        assert graph is not None, form
        self._graph(self._name, graph, 0, self._front(), instances=self._settings.instances)
        return (self._name,)

    def _form(self) -> str:
        """Return the form, "" for an artifact of one graph; refuse one that the artifact cannot have."""
        manifest, form = self._manifest, self._settings.form
        one_graph = manifest.one_graph is not None and self._settings.backend == "onnxruntime"
        if len(manifest.segments) == 1:
            allowed, default = [], ""
        else:
            allowed, default = ["bls", "sequence"] + ["graph"] * one_graph, "bls"
            if one_graph and _may_answer(self._artifact):
                default = "graph"
        if form is not None and form not in allowed:
            raise UsageError(
                f"'{self._artifact.path}' (layout {manifest.layout}) cannot have the form '{form}'"
                + (" with TensorRT." if self._settings.backend == "tensorrt" else "."),
                allowed=", ".join(allowed) or "no form: it is one graph, and so one model",
                next_step="leave the form out"
                + ("; sdcompress export CASCADE --layout graph writes the one graph" if form == "graph" else ""),
            )
        return form or default

    def _front(self) -> Batching:
        """Return how requests of clients are joined."""
        chosen = self._settings
        return Batching(
            self._most, chosen.preferred_batch_size, chosen.max_queue_delay_microseconds, chosen.max_queue_size
        )

    def _cascade(self, form: str) -> tuple[str, ...]:
        """Write a model for each segment and the program that runs them."""
        segments = self._manifest.segments
        names = tuple(f"{self._name}-segment-{index}" for index in range(len(segments)))
        program = cascade_program(self._artifact, names, stepwise=form == "sequence")
        for index, (name, segment) in enumerate(zip(names, segments, strict=True)):
            # the program sends whole batches, so that nothing is gained by waiting for more
            self._graph(name, segment, index, Batching(self._most), instances=1)
        self._program(program, form)
        return (self._name, *names)

    def _graph(self, name: str, graph: Segment, index: int, batching: Batching, *, instances: int) -> None:
        """Write the model of one graph, or of its engine."""
        settings, batched = self._settings, not isinstance(graph.inputs[0].shape[0], int)
        plan = self._engines.plans[index] if self._engines is not None else None
        self._copy(self._artifact.file(plan or graph), name, _PLAN if plan else _GRAPH)
        threads = settings.intra_op_threads
        serving = Serving(
            settings.backend,
            _PLAN if plan else _GRAPH,
            settings.runs_on,
            instances,
            profiles=tuple(map(str, range(len(self._engines.profiles)))) if self._engines else (),
            parameters={"intra_op_thread_count": str(threads)} if threads and not plan else {},
        )
        most = self._most if batched else 0
        labelled = {graph.outputs[0].name} if graph is self._manifest.one_graph else self._outputs_of_exits
        self._write_model(
            name,
            serving,
            inputs=self._computed(graph.inputs),
            outputs=self._computed(graph.outputs),
            labelled=labelled,
            batched=batched,
            most=most,
            scheduler={"dynamic_batching": batching.fields()} if batched else {},
            warm_up=True,
        )

    def _program(self, program: str, form: str) -> None:
        """Write the model of the program; without a warm-up, which would run before its segments are loaded."""
        self._write_text(f"{self._name}/{self._settings.version}/{_PROGRAM}", program)
        front = self._front().fields()
        scheduler = {"dynamic_batching": front}
        if form == "sequence":
            oldest = {name: front[name] for name in _OF_OLDEST if name in front}
            scheduler = {
                "sequence_batching": {
                    "max_sequence_idle_microseconds": _SEQUENCE_IDLE_MICROSECONDS,
                    "iterative_sequence": True,
                    "oldest": {"max_candidate_sequences": CANDIDATES, **oldest},
                }
            }
        serving = Serving("python", _PROGRAM, "cpu", self._settings.instances, parameters=self._description())
        outputs = Tensor(name=OUTPUTS, dtype="float32", shape=("batch", *self._artifact.task.output_shape))
        self._write_model(
            self._name,
            serving,
            inputs=self._computed(self._manifest.inputs),
            outputs=[outputs, EXIT_INDEX_TENSOR],
            labelled={OUTPUTS},
            batched=True,
            most=self._most,
            scheduler=scheduler,
            warm_up=False,
        )

    def _description(self) -> dict[str, str]:
        """Return what ``/v2/models/NAME/config`` tells clients of the policy."""
        manifest = self._manifest
        assert manifest.policy is not None, "cascade_program refuses a cascade without a policy"
        return {
            "artifact": manifest.digest,
            "exits": ", ".join(exit_.name for exit_ in manifest.exits),
            "guarantee": manifest.policy.guarantee,
        }

    def _computed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return tensors of graphs with the types that their backend has; the program takes them on as they are."""
        return [tensor.model_copy(update={"dtype": self._dtypes.get(tensor.dtype, tensor.dtype)}) for tensor in tensors]

    @property
    def _outputs_of_exits(self) -> set[str]:
        return {exit_.outputs for exit_ in self._manifest.exits}

    def _write_model(
        self,
        name: str,
        serving: Serving,
        *,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        labelled: set[str],
        batched: bool,
        most: int,
        scheduler: Mapping[str, Any],
        warm_up: bool,
    ) -> None:
        """Write config.pbtxt, and the names of the elements of outputs where each element has one."""
        task = self._artifact.task
        if task.output_shape != (len(task.outputs),) or not batched:
            labelled = set()
        inputs_fields = [port(tensor, batched=batched) for tensor in inputs]
        output_fields = [port(tensor, batched=batched, labels=tensor.name in labelled) for tensor in outputs]
        config = config_pbtxt(
            name, inputs_fields, output_fields, serving, max_batch_size=most, scheduler=scheduler, warm_up=warm_up
        )
        self._write_text(f"{name}/config.pbtxt", config)
        if any(tensor.name in labelled for tensor in outputs):
            self._write_text(f"{name}/{LABELS}", "".join(f"{printable(label)}\n" for label in task.outputs))

    def _copy(self, source: Path, name: str, file: str) -> None:
        target = self._folder / name / str(self._settings.version) / file
        target.parent.mkdir(parents=True)
        shutil.copyfile(source, target)

    def _write_text(self, name: str, text: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def _may_answer(artifact: Artifact) -> bool:
    """Return whether the one graph, if there is one, may answer in the place of the segments, as in ``open``."""
    manifest = artifact.manifest
    return manifest.certificate is None or manifest.one_graph is None or one_graph_agrees(manifest)
