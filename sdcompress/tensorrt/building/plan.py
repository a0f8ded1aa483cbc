"""One plan from one graph: TensorRT's builder, asked in the same way in all its versions. Needs the GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.graphs import Segment
from sdcompress.tensorrt.building.memory import tensor_shape
from sdcompress.tensorrt.building.nodes import node_at
from sdcompress.tensorrt.building.refusal import Fault, refused
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.nvidia.log import Log, created, must
from sdcompress.tensorrt.nvidia.trt import (
    TensorRT,
    allow_precision,
    logger,
    make_monitor,
    network_flags,
    own_tactics_only,
    parse_for_later_versions,
    set_hardware_compatibility,
    set_level,
    set_version_compatible,
    version_of,
    watch,
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
        level: the optimisation level that held; None before 8.6.
    """

    plan: bytes
    level: int | None


class Builder:
    """Builds the plans of one artifact, one after the other, with one timing cache.

    Args:
        trt: from ``nvidia.trt.load``.
        log: hears why, where something cannot be built.
        settings: for all plans.
        timings: bytes of a timing cache, or empty.
    """

    def __init__(self, trt: TensorRT, log: Log, settings: BuildSettings, timings: bytes = b"") -> None:
        self._trt, self._log, self._settings = trt, log, settings
        self.timings = timings
        self._builder = created(lambda: trt.Builder(logger(trt)), log, "a builder")

    def build(
        self, graph: bytes, segment: Segment, *, tell: Callable[[int], None], stopped: Callable[[], bool]
    ) -> Built:
        """Build a segment's plan; takes seconds to many minutes.

        Args:
            graph: the ONNX file's bytes, its hash checked.
            segment: what the manifest says of it.
            tell: told how much is done, see ``nvidia.progress``; never before TensorRT 9.
            stopped: asked between steps; True gives the build up. Never asked before TensorRT 9.

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
        monitor = make_monitor(self._trt, tell, stopped)
        watch(config, monitor)
        plan = self._built(network, config, segment, monitor)
        self.timings = _bytes(config.get_timing_cache().serialize())
        return Built(_bytes(plan), level)

    def _built(
        self, network: tensorrt.INetworkDefinition, config: tensorrt.IBuilderConfig, segment: Segment, monitor: Any
    ) -> tensorrt.IHostMemory:
        try:
            return created(
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
        network = created(lambda: self._builder.create_network(network_flags(trt)), log, "a network")
        parser = created(lambda: trt.OnnxParser(network, logger(trt)), log, "a parser")
        if self._settings.version_compatible:
            parse_for_later_versions(trt, parser)
        if not parser.parse(graph):
            faults = [_fault(parser.get_error(index), graph) for index in range(parser.num_errors)]
            raise refused(segment.file, faults, tensorrt=version_of(trt), reason=log.reason())
        return network, parser

    def _configure(self, config: tensorrt.IBuilderConfig, segment: Segment) -> int | None:
        trt, wish = self._trt, self._settings
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, wish.workspace_bytes)
        # without it the inspector knows layers by name only, and nobody could check what they compute in
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        own_tactics_only(trt, config)
        allow_precision(trt, config, segment.precision, tf32=wish.tf32)
        if wish.version_compatible:
            set_version_compatible(trt, config)
        set_hardware_compatibility(trt, config, wish.hardware_compatibility)
        return set_level(trt, config, wish.level)

    def _add_profile(self, config: tensorrt.IBuilderConfig, segment: Segment, batches: tuple[int, int, int]) -> None:
        profile, said = self._builder.create_optimization_profile(), ":".join(map(str, batches))
        for tensor in segment.inputs:
            smallest, opt, largest = (tensor_shape(tensor, size) for size in batches)
            give = partial(profile.set_shape, tensor.name, smallest, opt, largest)
            must(give, self._log, f"take the batches {said} for '{tensor.name}' of '{segment.file}'", next_step=_BATCH)
        # gives the profile's position, or -1
        must(
            lambda: config.add_optimization_profile(profile) >= 0,
            self._log, f"build '{segment.file}' for the batches {said}", next_step=_BATCH,
        )  # fmt: skip

    def _use_timings(self, config: tensorrt.IBuilderConfig) -> None:
        log = self._log
        try:
            cache = created(lambda: config.create_timing_cache(self.timings), log, "a timing cache")
            if config.set_timing_cache(cache, False):
                return
        except SetupError:  # bytes that are none
            pass
        if self._settings.timing_cache is not None:
            raise UsageError(
                f"'{self._settings.timing_cache}' is no timing cache of this machine: {log.reason()}.",
                allowed="a file that this TensorRT wrote for this GPU",
                next_step="name another --timing-cache; a new file is made where there is none",
            )
        config.set_timing_cache(created(lambda: config.create_timing_cache(b""), log, "a timing cache"), False)


def _fault(error: tensorrt.ParserError, graph: bytes) -> Fault:
    operator, name = getattr(error, "node_operator", None), getattr(error, "node_name", None)  # from 9
    found = (operator(), name()) if operator and name else node_at(graph, error.node()) or ("", "")
    return Fault(operator=found[0], node=found[1] or str(error.node()), description=str(error.desc()))


def _bytes(memory: Any) -> bytes:
    """A copy of TensorRT's host memory, which has a buffer that its type does not show."""
    return bytes(memoryview(memory))
