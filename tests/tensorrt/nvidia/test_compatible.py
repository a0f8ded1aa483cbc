"""Which engines a machine can load."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sdcompress.errors import SetupError
from sdcompress.schema.engines import BatchProfile, Engines, Plan
from sdcompress.schema.graphs import FileEntry
from sdcompress.tensorrt.nvidia.compatible import choose_engines, incompatibility, same_machine
from sdcompress.tensorrt.nvidia.gpu_query import Gpu
from sdcompress.tensorrt.nvidia.trt import version_of

L4 = Gpu("NVIDIA L4", "8.9", 24 * 2**30, "580.82.07", "13.0")
H100 = Gpu("NVIDIA H100 80GB HBM3", "9.0", 80 * 2**30, "580.82.07", "13.0")
T4 = Gpu("Tesla T4", "7.5", 16 * 2**30, "580.82.07", "13.0")
FILE = {"sha256": "0" * 64, "bytes": 1}


def built(**changed: Any) -> Engines:
    fields: dict[str, Any] = {
        "gpu": L4.name,
        "compute_capability": L4.compute_capability,
        "tensorrt": "10.9.0.34",
        "driver": "",
        "plans": (Plan(file="a.plan", device_memory_bytes=0, layers={"fp32": 1}, **FILE),),
        "profiles": (BatchProfile(min=1, opt=1, max=1),),
        "tf32": True,
        "workspace_bytes": 1,
        "builder_optimization_level": 3,
        "log": FileEntry(file="build.log", **FILE),
        "parity": (),
    }
    return Engines(**{**fields, **changed})


def test_engines_run_where_they_were_built() -> None:
    assert incompatibility(built(), tensorrt="10.9.0.34", gpu=L4) is None
    assert same_machine(built(), tensorrt="10.9.0.34", gpu=L4)


def test_elsewhere_both_machines_are_named() -> None:
    assert incompatibility(built(), tensorrt="11.4.0.106", gpu=H100) == (
        "the engines were built with TensorRT 10.9.0.34 for NVIDIA L4 (8.9), here are TensorRT 11.4.0.106 and NVIDIA "
        "H100 80GB HBM3 (9.0)"
    )


@pytest.mark.parametrize(
    ("made", "here", "loads"),
    [
        ("10.9.0.34", "10.16.1.11", True),
        ("10.9.0.34", "11.4.0.106", True),
        ("8.6.1", "10.9.0.34", True),
        ("8.6.1", "11.4.0.106", False),
        ("10.16.1.11", "10.9.0.34", False),
        ("11.4.0.106", "10.16.1.11", False),
    ],
)
def test_version_compatible_engines_run_with_later_versions(made: str, here: str, loads: bool) -> None:
    engines = built(tensorrt=made, version_compatible=True)
    assert (incompatibility(engines, tensorrt=here, gpu=L4) is None) is loads
    assert incompatibility(built(tensorrt=made), tensorrt=here, gpu=L4) is not None


@pytest.mark.parametrize(
    ("kind", "gpu", "runs"),
    [
        ("ampere_plus", H100, True),
        ("ampere_plus", T4, False),
        ("same_compute_capability", H100, False),
        ("same_compute_capability", L4._replace(name="NVIDIA L40S"), True),
        ("none", L4._replace(name="NVIDIA L40S"), False),
    ],
)
def test_hardware_compatible_engines_run_on_other_gpus(kind: str, gpu: Gpu, runs: bool) -> None:
    engines = built(hardware_compatibility=kind)
    assert (incompatibility(engines, tensorrt="10.9.0.34", gpu=gpu) is None) is runs


def test_the_lean_runtime_gets_version_compatible_engines_only() -> None:
    compatible = built(version_compatible=True)
    assert incompatibility(compatible, tensorrt="10.9.0.34", gpu=L4, lean=True) is None
    assert "tensorrt_lean" in str(incompatibility(built(), tensorrt="10.9.0.34", gpu=L4, lean=True))
    assert choose_engines([compatible, built()], tensorrt="10.9.0.34", gpu=L4, artifact="a", lean=True) == compatible
    with pytest.raises(SetupError, match="tensorrt_lean"):
        choose_engines([built()], tensorrt="10.9.0.34", gpu=L4, artifact="a", lean=True)


def test_those_for_exactly_this_machine_are_chosen() -> None:
    compatible = built(gpu=H100.name, compute_capability="9.0", hardware_compatibility="ampere_plus")
    assert choose_engines([built(), compatible], tensorrt="10.9.0.34", gpu=L4, artifact="a") == built()
    assert choose_engines([compatible], tensorrt="10.9.0.34", gpu=L4, artifact="a") == compatible


@pytest.mark.parametrize(
    ("engines", "found"),
    [([], "'early' has no TensorRT engines."), ([built()], "The engines were built with TensorRT")],
)
def test_where_there_are_none_the_command_that_builds_them_is_named(engines: list[Engines], found: str) -> None:
    with pytest.raises(SetupError) as caught:
        choose_engines(engines, tensorrt="11.4.0.106", gpu=H100, artifact="early")
    assert caught.value.problem.startswith(found)
    assert caught.value.next_step == "sdcompress build-engines early --out early --overwrite"


@pytest.mark.parametrize(
    ("wheel", "numbers"), [("10.9.0.34", "10.9.0.34"), ("10.0.0b6", "10.0.0"), ("8.6.1.post1", "8.6.1")]
)
def test_the_version_of_a_wheel_is_its_numbers(wheel: str, numbers: str) -> None:
    version = version_of(SimpleNamespace(__version__=wheel))
    assert version == numbers
    assert incompatibility(built(tensorrt=version), tensorrt=version, gpu=L4) is None  # the manifest takes it
