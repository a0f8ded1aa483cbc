"""Which files are opened, and by what."""

from __future__ import annotations

import ast
import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sdcompress
from sdcompress.errors import InputError
from sdcompress.modalities import _image_files as pictures
from sdcompress.modalities._image_files import check_picture, open_picture

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"


def test_an_eps_by_the_name_of_a_photo_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **_: object) -> None:
        raise AssertionError(f"a program was started: {arguments}")

    monkeypatch.setattr(subprocess, "check_call", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    path = tmp_path / "holiday.png"
    path.write_bytes(EPS)
    for file in (path, str(path), EPS, io.BytesIO(EPS)):
        with (
            pytest.raises(InputError, match=r"(?s)no image of the formats.*allowed: .*PNG"),
            open_picture(file) as image,
        ):
            image.load()


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP"])
def test_the_usual_formats_are_opened_whatever_the_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo"
    Image.new("RGB", (6, 4), (200, 10, 10)).save(path, kind)
    with open_picture(path) as image:
        assert image.size == (6, 4)
        assert abs(image.convert("RGB").getpixel((3, 2))[0] - 200) < 3


def test_too_many_pixels_are_refused_by_the_header_whatever_the_program_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("L", (30, 20)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with open_picture(file.getvalue()):
        pass
    monkeypatch.setattr(pictures, "MOST_PIXELS", 599)
    with pytest.raises(InputError, match=r"30x20 pixels"), open_picture(file.getvalue()):
        pass
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"600 pixels"), open_picture(file.getvalue()):
        pass


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path / "nowhere.png", tmp_path):
        with pytest.raises(InputError, match=str(path)), open_picture(path):
            pass


def test_images_are_opened_in_this_place_alone() -> None:
    package = Path(sdcompress.__file__).parent
    opens = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "Image.open"
    ]
    assert opens == ["modalities/_image_files.py"]


def test_a_broken_header_is_no_image() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "PNG")
    for content in (b"", b"no image", file.getvalue()[:20], b"\x89PNG\r\n\x1a\n" + b"\xff" * 40):
        with pytest.raises(InputError), open_picture(content) as image:
            image.load()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("in_a_file", [True, False])
def test_a_file_that_is_cut_is_found_without_decoding_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, in_a_file: bool
) -> None:
    def given(content: bytes) -> Path | bytes:
        path = tmp_path / "image"
        path.write_bytes(content)
        return path if in_a_file else content

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file, kind)
    whole = file.getvalue()
    check_picture(given(whole + b"what a camera appends"))
    for length in (len(whole) // 4, len(whole) // 2, len(whole) - 200):
        with pytest.raises(InputError):
            check_picture(given(whole[:length]))
    monkeypatch.setattr(pictures, "load_pixels", lambda _image: pytest.fail("decoded"))
    check_picture(given(whole))


def test_a_header_tells_of_a_depth_that_cannot_be_used() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(file, "TIFF")
    with pytest.raises(InputError, match="mode 'F'"):
        check_picture(file.getvalue())
