"""Which TensorRT versions are supported, and the command that installs one. Pure Python."""

from __future__ import annotations

import re

from sdcompress.errors import SetupError

__all__ = ["SUPPORTED", "bindings_line", "install_line", "major_minor", "not_importable", "version_problem"]

SUPPORTED = "TensorRT 8.5, 8.6, 10 or 11"


def not_importable(error: Exception, cuda: str) -> SetupError:
    """Return the error for a ``tensorrt`` that could not be imported: absent, or without one of its libraries.

    Args:
        error: of the import.
        cuda: the newest CUDA version that the driver supports.
    """
    library = re.search(r"lib[\w.+-]+\.so[\w.]*", str(error))
    if isinstance(error, ModuleNotFoundError) and library is None:
        return SetupError("TensorRT is not installed.", allowed=SUPPORTED, next_step=install_line(cuda))
    problem = f"TensorRT is installed but cannot be loaded: {error}."
    if library is not None and library.group().startswith(("libcudnn", "libcublas")):
        return SetupError(
            problem,
            allowed="the libraries of CUDA 11 that TensorRT 8.5 is linked with: cuDNN 8 and cuBLAS 11",
            next_step="pip install 'nvidia-cudnn-cu11<9' nvidia-cublas-cu11 and put their folders on LD_LIBRARY_PATH",
        )
    return SetupError(
        problem,
        allowed="the bindings together with TensorRT's libraries, which only NVIDIA's index has",
        next_step=install_line(cuda),
    )


def install_line(cuda: str = "") -> str:
    """Return the command that installs a TensorRT for a driver.

    Args:
        cuda: the newest CUDA version that the driver supports; empty: unknown.
    """
    if cuda.startswith("11."):
        return (
            "upgrade the NVIDIA driver to one for CUDA 12 or 13, or with Python 3.10 or older: "
            "pip install 'tensorrt==8.5.3.1' (the last for CUDA 11 that PyPI holds)"
        )
    package = "tensorrt-cu12" if cuda.startswith("12.") else "tensorrt-cu13"
    return (
        f"pip install {package} --extra-index-url https://pypi.nvidia.com (PyPI's 'tensorrt' holds no library: it "
        "downloads from that index and fails where only PyPI is reachable)"
    )


def bindings_line(cuda: str = "") -> str:
    """Return the command that installs a cuda-bindings for a driver, which takes none of a later major version.

    Args:
        cuda: the newest CUDA version that the driver supports; empty: unknown.
    """
    return f"pip install 'cuda-bindings>=12.6{',<13' if cuda.startswith('12.') else ''}'"


def version_problem(version: str) -> str | None:
    """Return why a TensorRT version is not supported; None if it is."""
    major, minor = major_minor(version)
    if major in (10, 11) or (major == 8 and minor in (5, 6)):
        return None
    return f"TensorRT {version} is installed, which this sdcompress does not support."


def major_minor(version: str) -> tuple[int, int]:
    """Return major and minor number of a version; (0, 0) if it has none."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)
