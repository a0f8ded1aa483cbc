"""Which TensorRT will do, and what is said where it does not."""

from __future__ import annotations

import pytest

from sdcompress.tensorrt.nvidia.install import bindings_line, install_line, not_importable, version_problem


@pytest.mark.parametrize("version", ["8.5.3.1", "8.6.1", "10.0.1", "10.16.1.11", "11.4.0.106"])
def test_known_versions(version: str) -> None:
    assert version_problem(version) is None


@pytest.mark.parametrize("version", ["7.2.3", "8.4.1.5", "9.3.0", "12.0.0", "what"])
def test_other_versions_are_refused_by_name(version: str) -> None:
    assert version in str(version_problem(version))


@pytest.mark.parametrize(("cuda", "package"), [("13.0", "tensorrt-cu13"), ("12.8", "tensorrt-cu12"), ("", "-cu13")])
def test_the_command_fits_the_driver_and_explains_pypis_package(cuda: str, package: str) -> None:
    line = install_line(cuda)
    assert f"{package} --extra-index-url https://pypi.nvidia.com" in line
    assert "holds no library" in line


def test_a_driver_for_cuda_11_gets_the_version_that_it_can_run() -> None:
    line = install_line("11.4")
    assert "upgrade the NVIDIA driver" in line
    assert "tensorrt==8.5.3.1" in line
    assert "cu13" not in line


# the words are those of the real packages on a machine that lacks the library
@pytest.mark.parametrize(
    ("error", "found", "step"),
    [
        (
            ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt"),
            "not installed",
            "pip install tensorrt-cu12",
        ),
        (ImportError("libnvonnxparser.so.11: cannot open shared object file"), "libnvonnxparser", "tensorrt-cu12"),
        (ImportError("libcublas.so.11: cannot open shared object file"), "libcublas", "nvidia-cublas-cu11"),
    ],
)
def test_a_failed_import_names_the_library_and_the_line_that_works(error: Exception, found: str, step: str) -> None:
    refusal = not_importable(error, "12.4")
    assert found in refusal.problem
    assert step in refusal.next_step
    assert refusal.allowed


def test_a_driver_for_cuda_12_gets_bindings_that_it_can_run() -> None:
    """CUDA 13 does not run on it: cudaErrorInsufficientDriver. An older version runs on a newer driver."""
    assert bindings_line("12.8") == "pip install 'cuda-bindings>=12.6,<13'"
    assert bindings_line("13.0") == bindings_line() == "pip install 'cuda-bindings>=12.6'"
