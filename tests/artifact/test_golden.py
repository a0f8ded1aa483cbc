"""Golden samples are few, real and readable by anybody with numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from meaning import image_modality

from sdcompress.artifact.golden import Golden
from sdcompress.errors import ArtifactError

MODALITY = image_modality((3, 2, 2))


def golden(count: int, side: int = 2) -> Golden:
    labels = np.arange(count, dtype=np.int64)
    images = np.zeros((count, side, side, 3), np.uint8) + labels[:, None, None, None].astype(np.uint8)
    return Golden(images, labels, np.stack([labels, labels]).astype(np.float32)[:, :, None])


def test_samples_are_capped_and_spread() -> None:
    capped = golden(63).capped(MODALITY)
    assert capped.targets.tolist() == list(range(0, 64, 2))
    np.testing.assert_array_equal(capped.examples[:, 0, 0, 0], capped.targets)
    np.testing.assert_array_equal(capped.outputs[1, :, 0], capped.targets)


@pytest.mark.parametrize(("side", "kept"), [(2, 32), (600, 3), (1100, 1), (1500, 1)])
def test_large_images_are_fewer_but_never_none(side: int, kept: int) -> None:
    # 600 x 600 x 3 = 1.03 MiB, of which three fit into 4 MiB
    assert len(golden(40, side).capped(MODALITY).targets) == kept


def test_large_outputs_and_targets_count_too() -> None:
    masks = Golden(golden(40).examples, np.zeros((40, 400, 400), np.uint8), np.zeros((2, 40, 400, 400), np.float32))
    capped = masks.capped(MODALITY)  # (1 + 2 x 4) x 160 000 bytes = 1.37 MiB each
    assert (len(capped.targets), capped.outputs.shape[1], len(capped.examples)) == (2, 2, 2)


def test_a_file_holds_what_was_saved_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    saved = golden(5)
    saved.save(tmp_path / "a.npz", MODALITY)
    saved.save(tmp_path / "b.npz", MODALITY)
    loaded = Golden.load(tmp_path / "a.npz", MODALITY)
    for name in ("examples", "targets", "outputs"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"examples": np.zeros((5, 2, 2, 3), "S1")}, "'examples' is .*S1"),
        ({"examples": np.zeros((5, 2, 2), np.uint8)}, "'examples' is uint8"),
        ({"targets": np.zeros(5, "datetime64[s]")}, "'targets' is datetime64"),
        ({"targets": np.zeros(0, np.int64)}, "count"),
        ({"outputs": np.zeros((2, 4, 1), np.float32)}, "count"),
        ({"outputs": np.zeros(5, np.float32)}, "no axis of samples"),
        ({"targets": np.int64(3)}, "no axis of samples"),
        ({"outputs": np.zeros((2, 5, 1))}, "'outputs' is float64"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, change: dict[str, np.ndarray], word: str) -> None:
    good = golden(5)
    np.savez(tmp_path / "g.npz", **{**vars(good), **change})
    with pytest.raises(ArtifactError, match=word):
        Golden.load(tmp_path / "g.npz", MODALITY)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    np.save(tmp_path / "plain.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("other.npz", "plain.npy", "text.npz", "empty.npz", "nowhere.npz"):
        with pytest.raises(ArtifactError, match=name):
            Golden.load(tmp_path / name, MODALITY)
