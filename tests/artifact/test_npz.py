"""An .npz is known by its headers before anything is allocated for it, and is read as numpy writes it."""

from __future__ import annotations

import io
import lzma
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from meaning import image_modality
from numpy.lib import format as npy

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.golden import Golden
from sdcompress.artifact.npz import Expected, read_npz
from sdcompress.errors import ArtifactError
from sdcompress.untrusted import Refused

MEBIBYTES = 40
GOLDEN = {
    "examples": np.zeros((2, 4, 4, 1), np.uint8),
    "targets": np.zeros(2, np.int64),
    "outputs": np.zeros((1, 2, 3), np.float32),
}


def member(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    npy.write_array(content, array)
    return content.getvalue()


def header(shape: str, descr: str = "'|u1'", fortran: str = "False") -> bytes:
    """The start of a .npy in which this stands, whatever it is."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(replaced: bytes, kind: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    """Golden samples, with these bytes in the place of the images, and with further members."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive_file:
        archive_file.writestr("examples.npy", replaced, compress_type=kind)
        for name in ("targets", "outputs"):
            archive_file.writestr(f"{name}.npy", member(GOLDEN[name]))
        for name, added in more.items():
            archive_file.writestr(name, added)
    return content.getvalue()


def bomb() -> bytes:
    """256 MiB of zeros, in a megabyte."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive_file:
        with archive_file.open("examples.npy", "w") as file:
            file.write(member(np.zeros((1, 0, 4, 1), np.uint8)).replace(b"(1, 0, 4, 1)", b"(1,2**26,4,1)"))
            for _ in range(64):
                file.write(bytes(2**22))
        for name in ("targets", "outputs"):
            archive_file.writestr(f"{name}.npy", member(GOLDEN[name]))
    return content.getvalue()


def patched(offset_in_directory: int, value: int) -> bytes:
    """An archive whose first member is described otherwise, where it lies and in the directory at the end."""
    content = bytearray(archive(member(GOLDEN["examples"])))
    struct.pack_into("<H", content, offset_in_directory - 2, value)
    struct.pack_into("<H", content, content.index(b"PK\x01\x02") + offset_in_directory, value)
    return bytes(content)


def long_directory() -> bytes:
    """A member too many, many times over."""
    content = archive(member(GOLDEN["examples"]))
    start = content.index(b"PK\x01\x02")
    one = content[start : content.index(b"PK\x01\x02", start + 4)]
    end = bytearray(content[-22:])
    struct.pack_into("<I", end, 12, len(one) * 100_000)
    return content[:start] + one * 100_000 + bytes(end)


def zip64(size: int = 2**60) -> bytes:
    """A second end of the directory, which speaks of a larger one."""
    content = archive(member(GOLDEN["examples"]))
    end = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 3, 3, size, content.index(b"PK\x01\x02"))
    return content[:-22] + end + struct.pack("<4sIQI", b"PK\x06\x07", 0, len(content) - 22, 1) + content[-22:]


def lzma_broken() -> bytes:
    content = bytearray(archive(member(GOLDEN["examples"]) * 50, zipfile.ZIP_LZMA))
    at = content.index(b"examples.npy") + len(b"examples.npy")
    content[at + 4 : at + 40] = b"\xff" * 36
    with pytest.raises((lzma.LZMAError, EOFError, ValueError)), zipfile.ZipFile(io.BytesIO(content)) as archive_file:
        archive_file.read("examples.npy")
    return bytes(content)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a bomb": bomb,
    "compressed as it should be": lambda: archive(member(GOLDEN["examples"]), zipfile.ZIP_DEFLATED),
    "a header of 2^50 bytes": lambda: archive(header(str((1, 2**25, 2**25, 1)))),
    "a header of 2^90 bytes": lambda: archive(header(str((2**30, 2**30, 2**30, 1)))),
    "no bytes of 2^70 rows": lambda: archive(header(str((2**70, 0, 0, 0)))),
    "rows below zero": lambda: archive(header(str((-1, -1, 4, 4))) + bytes(16)),
    "a shape that is none": lambda: archive(header("'all'")),
    "a shape of true things": lambda: archive(header("(True, None, 4, 1)")),
    "a header of brackets": lambda: archive(header("(" * 5000)),
    "code for a shape": lambda: archive(header("(print(1), 4, 4, 1)")),
    "a type of 2 GiB": lambda: archive(header("(1, 4, 4, 1)", "'|V2147483647'")),
    "a type that is none": lambda: archive(header("(1, 4, 4, 1)", "'nothing'")),
    "objects": lambda: archive(member(np.array([[[[None]]]], object))),
    "encrypted": lambda: patched(8, 1),
    "an unknown compression": lambda: patched(10, 97),
    "LZMA that is broken": lzma_broken,
    "a member that is no array": lambda: archive(b"hello"),
    "an empty member": lambda: archive(b""),
    "a version of the format that is none": lambda: archive(b"\x93NUMPY\x09\x00" + bytes(100)),
    "a header of gigabytes": lambda: archive(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100)),
    "too few bytes": lambda: archive(member(GOLDEN["examples"])[:-1]),
    "too many bytes": lambda: archive(member(GOLDEN["examples"]) + b"x"),
    "another member": lambda: archive(member(GOLDEN["examples"]), **{"more.npy": member(GOLDEN["targets"])}),
    "the images twice": lambda: archive(member(GOLDEN["examples"]), examples=member(GOLDEN["examples"])),
    "a long directory": long_directory,
    "a directory of 2^60 bytes": zip64,
    "a comment": lambda: archive(member(GOLDEN["examples"]))[:-2] + b"\x05\x00hello",
    "a flipped bit": lambda: archive(member(np.ones((2, 4, 4, 1), np.uint8))).replace(
        b"\x01" * 32, b"\x01" * 31 + b"\0"
    ),
    "a .npy": lambda: member(GOLDEN["examples"]),
    "nothing": bytes,
    "zeros": lambda: bytes(1000),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_numpy_did_not_write_is_refused_before_it_is_unpacked(tmp_path: Path, make: Callable[[], bytes]) -> None:
    (tmp_path / "a.npz").write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match=r"'a\.npz' cannot be read") as caught:
            Golden.load(tmp_path / "a.npz", image_modality((1, 4, 4)))
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTES * 2**20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("order", ["C", "F"])
def test_every_array_that_numpy_stores_is_read_as_numpy_reads_it(tmp_path: Path, order: str) -> None:
    rng = np.random.default_rng(0)
    kept = {
        "a": np.asarray(rng.integers(0, 256, (3, 5, 2, 4), np.uint8), order=order),  # type: ignore[call-overload]
        "b": np.asarray(rng.normal(size=(4, 6)).astype(np.float32), order=order),  # type: ignore[call-overload]
        "c": np.empty((0, 7), np.int64),
        "d": np.zeros(1, np.int32),
    }
    np.savez(tmp_path / "a.npz", **kept)
    expected = {name: Expected(str(array.dtype), array.ndim) for name, array in kept.items()}
    arrays = read_npz(tmp_path / "a.npz", {**expected, "e": Expected("uint8", 1, optional=True)})
    assert arrays.keys() == kept.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, kept[name])
        assert array.dtype == kept[name].dtype
        assert array.flags.writeable


def test_evidence_is_read_by_the_same_rules(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive_file:
        archive_file.writestr("scores.npy", header(str((1, 2**48)), "'<f4'"))
        archive_file.writestr("loss.npy", member(np.zeros((2, 3), np.float32)))
    with pytest.raises(ArtifactError, match=f"has 0 bytes instead of {2**50}"):
        Evidence.load(tmp_path / "a.npz")


def test_a_link_or_a_large_file_is_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.npz")
    with pytest.raises(Refused, match="symlink"):
        read_npz(tmp_path / "link.npz", {"a": Expected("float64", 1)})
    with (tmp_path / "a.npz").open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(Refused, match="bytes"):
        read_npz(tmp_path / "a.npz", {"a": Expected("float64", 1)})
