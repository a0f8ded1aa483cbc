"""Build one plan from one graph, by TensorRT's builder of any version. Needs the GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.graphs import Segment
from sdcompress.tensorrt.building.hardware import tensor_shape
from sdcompress.tensorrt.building.parser_errors import Fault, node_at, parse_error
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.nvidia.log import Log, create, require
from sdcompress.tensorrt.nvidia.trt import (
    TensorRT,
    allow_precision,
    disable_external_tactics,
    logger,
    make_monitor,
    network_flags,
    set_hardware_compatibility,
    set_level,
    set_monitor,
    set_native_instance_norm,
    set_version_compatible,
    version_of,
)

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Builder", "Built"]

_BATCH = "choose another --batch"


@dataclass(frozen=True)
class Built:
    """A plan.

    Attributes:
        plan: its bytes.
        level: the optimisation level of the build; None before 8.6.
    """

    plan: bytes
    level: int | None


class Builder:
    """Builds the plans of one artifact, one after the other, with one timing cache.

    Args:
        trt: from ``nvidia.trt.load``.
        log: receives the reason of a failure.
        settings: for all plans.
        timings: bytes of a timing cache, or empty.
    """

    def __init__(self, trt: TensorRT, log: Log, settings: BuildSettings, timings: bytes = b"") -> None:
        self._trt, self._log, self._settings = trt, log, settings
        self.timings = timings
        self._builder = create(lambda: trt.Builder(logger(trt)), log, "a builder")

    def build(
        self, graph: bytes, segment: Segment, *, report: Callable[[int], None], stopped: Callable[[], bool]
    ) -> Built:
        """Build a segment's plan; takes seconds to many minutes.

        Args:
            graph: the ONNX file's bytes, its hash checked.
            segment: its entry in the manifest.
            report: called with the share that is done, see ``nvidia.progress``; not before TensorRT 9.
            stopped: called between steps; True stops the build. Not called before TensorRT 9.

        Raises:
            UsageError: if the parser refuses the graph, or the version lacks what is asked for.
            SetupError: if the build fails, for want of memory for example, or was given up.
        """
        config = self._builder.create_builder_config()
        level = self._configure(config, segment)  # first: it names a precision that this version has not
        # the parser owns the weights that the network points to: it must live until the plan is there
        network, _parser = self._parsed(graph, segment)
        for profile in self._settings.profiles:
            self._add_profile(config, segment, (profile.min, profile.opt, profile.max))
        self._use_timings(config)
        monitor = make_monitor(self._trt, report, stopped)
        set_monitor(config, monitor)
        plan = self._built(network, config, segment, monitor)
        self.timings = _bytes(config.get_timing_cache().serialize())
        return Built(_bytes(plan), level)

    def _built(
        self, network: tensorrt.INetworkDefinition, config: tensorrt.IBuilderConfig, segment: Segment, monitor: Any
    ) -> tensorrt.IHostMemory:
        try:
            return create(
                lambda: self._builder.build_serialized_network(network, config),
                self._log,
                f"a plan of '{segment.file}'",
                next_step="read the reason; try a larger --workspace, a smaller --batch or a lower --level, and look "
                "at nvidia-smi for what else takes memory",
            )
        finally:
            if monitor is not None and monitor.failed is not None:
                raise monitor.failed

    def _parsed(self, graph: bytes, segment: Segment) -> tuple[tensorrt.INetworkDefinition, tensorrt.OnnxParser]:
        trt, log = self._trt, self._log
        network = create(lambda: self._builder.create_network(network_flags(trt)), log, "a network")
        parser = create(lambda: trt.OnnxParser(network, logger(trt)), log, "a parser")
        set_native_instance_norm(trt, parser)
        if not parser.parse(graph):
            faults = [_fault(parser.get_error(index), graph) for index in range(parser.num_errors)]
            raise parse_error(segment.file, faults, tensorrt=version_of(trt), reason=log.reason())
        return network, parser

    def _configure(self, config: tensorrt.IBuilderConfig, segment: Segment) -> int | None:
        trt, settings = self._trt, self._settings
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        # without it the inspector gives only the names of layers, and their precision cannot be checked
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        disable_external_tactics(trt, config)
        allow_precision(trt, config, segment.precision, tf32=settings.tf32)
        if settings.version_compatible:
            set_version_compatible(trt, config)
        set_hardware_compatibility(trt, config, settings.hardware_compatibility)
        return set_level(trt, config, settings.level)

    def _add_profile(self, config: tensorrt.IBuilderConfig, segment: Segment, batches: tuple[int, int, int]) -> None:
        profile, batches_text = self._builder.create_optimization_profile(), ":".join(map(str, batches))
        for tensor in segment.inputs:
            smallest, opt, largest = (tensor_shape(tensor, size) for size in batches)
            set_shape = partial(profile.set_shape, tensor.name, smallest, opt, largest)
            require(
                set_shape,
                self._log,
                f"take the batches {batches_text} for '{tensor.name}' of '{segment.file}'",
                next_step=_BATCH,
            )
        # gives the profile's position, or -1
        require(
            lambda: config.add_optimization_profile(profile) >= 0,
            self._log, f"build '{segment.file}' for the batches {batches_text}", next_step=_BATCH,
        )  # fmt: skip

    def _use_timings(self, config: tensorrt.IBuilderConfig) -> None:
        log = self._log
        try:
            cache = create(lambda: config.create_timing_cache(self.timings), log, "a timing cache")
            if config.set_timing_cache(cache, False):
                return
        except SetupError:  # the bytes are no timing cache
            pass
        if self._settings.timing_cache is not None:
            raise UsageError(
                f"'{self._settings.timing_cache}' is no timing cache of this machine: {log.reason()}.",
                allowed="a file that this TensorRT wrote for this GPU",
                next_step="name another --timing-cache; a new file is made where there is none",
            )
        config.set_timing_cache(create(lambda: config.create_timing_cache(b""), log, "a timing cache"), False)


def _fault(error: tensorrt.ParserError, graph: bytes) -> Fault:
    operator, name = getattr(error, "node_operator", None), getattr(error, "node_name", None)  # from 9
    node = (operator(), name()) if operator and name else node_at(graph, error.node()) or ("", "")
    return Fault(operator=node[0], node=node[1] or str(error.node()), description=str(error.desc()))


def _bytes(memory: Any) -> bytes:
    """A copy of TensorRT's host memory, which has a buffer that its type does not show."""
    return bytes(memoryview(memory))
