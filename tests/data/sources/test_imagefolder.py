from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdcompress import recipes
from sdcompress.data import load
from sdcompress.data.samples import Dataset
from sdcompress.errors import DataError, RecipeError
from sdcompress.schema.recipe import Data, ModalitySection

SIZE = ModalitySection(image_size=28)


def picture(path: Path, value: int, size: tuple[int, int] = (40, 48), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(path)


def tree(root: Path, *, splits: tuple[str, ...] = ("train", "test"), classes: str = "ab", count: int = 10) -> Path:
    """Folders of even pictures; a picture's brightness is 10 * class + its number."""
    for split in splits:
        for label, name in enumerate(classes):
            for number in range(count):
                picture(root / split / name / f"{number:02}.png", 10 * label + number)
    return root


def loaded(root: Path, modality: ModalitySection = SIZE, **settings: object) -> Dataset:
    return load(Data(name="imagefolder", dir=str(root), **settings), seed=0, modality=modality)


def values(dataset: Dataset) -> dict[str, list[int]]:
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {name: samples.examples(np.arange(len(samples)))[:, 0, 0, 0].tolist() for name, samples in parts.items()}


def test_one_set_of_class_folders_is_split(tmp_path: Path) -> None:
    dataset = loaded(tree(tmp_path, splits=("",)), validation=0.25)
    by_split = values(dataset)
    assert [len(by_split[name]) for name in ("train", "val", "test")] == [12, 4, 4]
    assert sorted(value for part in by_split.values() for value in part) == list(range(20))
    assert dataset.outputs == ("a", "b")
    assert dataset.modality.shape == (3, 28, 28)
    assert dataset.train.targets.tolist() == [value // 10 for value in by_split["train"]]


def test_splits_on_disk_are_kept(tmp_path: Path) -> None:
    dataset = loaded(tree(tmp_path, splits=("train", "val", "test")))
    assert values(dataset) == {name: list(range(20)) for name in ("train", "val", "test")}


def test_without_val_a_share_of_train_is_held_out(tmp_path: Path) -> None:
    by_split = values(loaded(tree(tmp_path), validation=0.1))
    assert [len(by_split[name]) for name in ("train", "val", "test")] == [18, 2, 20]
    assert sorted(by_split["train"] + by_split["val"]) == list(range(20))


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    tree(tmp_path)
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, 32:96] = 255  # after 64 -> 32 pixels of height, columns 16 to 48 of 64 are white; the crop is 18 to 46
    Image.fromarray(stripes).save(tmp_path / "train" / "a" / "00.png")
    dataset = loaded(tmp_path, validation=0.0)
    assert (dataset.train.examples(np.array([0])) == 255).all()
    assert (dataset.modality.preprocess.resize, dataset.modality.preprocess.crop) == (32, (28, 28))


def test_files_of_many_kinds_become_rgb_and_others_are_passed_over(tmp_path: Path) -> None:
    tree(tmp_path)
    picture(tmp_path / "train" / "a" / "deep" / "er" / "grey.JPEG", 200, mode="L")
    (tmp_path / "train" / "a" / "._00.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "train" / "a" / "readme.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    with pytest.warns(UserWarning, match=r"1 hidden \(train/\.cache\); 1 files that do not end in .*: 1 \.txt"):
        dataset = loaded(tmp_path, validation=0.0)
    assert len(dataset.train) == 21
    assert dataset.train.examples(np.array([10]))[0, 0, 0].tolist() == [200, 200, 200]


def test_the_fingerprint_is_that_of_paths_and_sizes(tmp_path: Path) -> None:
    first = loaded(tree(tmp_path / "one")).fingerprint
    assert loaded(tree(tmp_path / "two")).fingerprint == first
    (tmp_path / "two" / "test" / "a" / "00.png").rename(tmp_path / "two" / "test" / "a" / "0.png")
    assert loaded(tmp_path / "two").fingerprint != first
    picture(tmp_path / "one" / "test" / "a" / "00.png", 0, size=(400, 480))
    assert loaded(tmp_path / "one").fingerprint != first


def test_a_corrupt_image_is_named_when_it_is_decoded(tmp_path: Path) -> None:
    tree(tmp_path)
    broken = tmp_path / "train" / "b" / "03.png"
    intact = broken.read_bytes()
    dataset = loaded(tmp_path, validation=0.0)
    for content in (b"", b"no image", intact[: len(intact) // 2], intact[:40] + b"\x55" * 30 + intact[70:]):
        broken.write_bytes(content)
        with pytest.raises(DataError, match=r"03\.png"):
            dataset.train.examples(np.array([13]))


def test_an_image_of_16_bits_is_scaled(tmp_path: Path) -> None:
    tree(tmp_path)
    Image.fromarray(np.full((40, 40), 3000, np.uint16)).save(tmp_path / "train" / "b" / "03.png")
    for white, level in ((None, 12), (4095, 187)):  # 255 * 3000 / 65535 = 11.7 and 255 * 3000 / 4095 = 186.8
        dataset = loaded(tmp_path, ModalitySection(image_size=28, white_level=white), validation=0.0)
        assert (dataset.train.examples(np.array([13])) == level).all()


def test_an_image_of_32_bits_is_named(tmp_path: Path) -> None:
    tree(tmp_path)
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(tmp_path / "train" / "b" / "03.png", "TIFF")
    with pytest.raises(DataError, match=r"03\.png.*32-bit floats"):
        loaded(tmp_path, validation=0.0).train.examples(np.array([13]))


def refused(root: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        loaded(root)
    for word in words:
        assert word in str(caught.value)


def test_splits_with_different_classes_are_refused(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "test" / "b").rename(tmp_path / "test" / "c")
    refused(tmp_path, "only in train/: b", "only in test/: c")


@pytest.mark.parametrize("empty", [True, False])
def test_a_class_may_be_missing_where_nothing_trains(tmp_path: Path, empty: bool) -> None:
    shutil.rmtree(tree(tmp_path, classes="abc") / "test" / "b")
    if empty:
        (tmp_path / "test" / "b").mkdir()
    with pytest.warns(UserWarning, match="test holds no image of b: nothing is measured"):
        dataset = loaded(tmp_path)
    assert dataset.outputs == ("a", "b", "c")
    assert sorted(set(dataset.test.targets.tolist())) == [0, 2]
    assert sorted(values(dataset)["test"]) == [*range(10), *range(20, 30)]


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    (tree(tmp_path) / "train" / "c").mkdir()
    (tmp_path / "test" / "c").mkdir()
    (tmp_path / "train" / "c" / "notes.txt").write_text("")
    refused(tmp_path, str(tmp_path / "train" / "c"), ".png")


def test_folders_that_are_not_there_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere")
    refused(tmp_path, "holds no folders")
    refused(tree(tmp_path, splits=("train",)), "no test", "rename validation")


def test_a_class_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")  # as a disk of another encoding has it
    for split in ("train", "test"):
        (tree(tmp_path, splits=(split,)) / split / "b").rename(tmp_path / split / name)
    refused(tmp_path, r"'caf\udce9'", "UTF-8", "rename the folder")


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    refused(tree(tmp_path, classes="a"), "1 class")


def test_the_folder_must_be_named() -> None:
    with pytest.raises(RecipeError, match=r"data\.dir"):
        load(Data(name="imagefolder"), seed=0)


def test_images_behind_links_are_read(tmp_path: Path) -> None:
    root, elsewhere = tree(tmp_path / "set"), tree(tmp_path / "elsewhere", splits=("",), classes="c")
    (root / "train" / "a" / "more").symlink_to(elsewhere / "c")
    for split in ("train", "test"):
        (root / split / "linked").symlink_to(elsewhere / "c")
    picture(tmp_path / "one.png", 77)
    (root / "train" / "b" / "99.png").symlink_to(tmp_path / "one.png")
    dataset = loaded(root, validation=0.0)
    assert dataset.outputs == ("a", "b", "linked")
    assert np.bincount(dataset.train.targets).tolist() == [20, 11, 10]
    assert dataset.train.examples(np.array([30])).max() == 77


def test_a_link_back_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "train" / "a" / "again").symlink_to(root / "train")
    refused(root, "train/a/again/a", "leads back")
    (root / "train" / "a" / "again").unlink()
    (root / "train" / "a" / "self").symlink_to(root / "train" / "a")
    refused(root, "train/a/self", "leads back")


def test_a_folder_that_is_linked_twice_is_read_once_under_its_own_name_and_that_is_said(tmp_path: Path) -> None:
    root = tree(tmp_path)
    picture(root / "train" / "a" / "own" / "x.png", 50)
    (root / "train" / "a" / "a_link").symlink_to(root / "train" / "a" / "own")
    (root / "train" / "b" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.warns(
        UserWarning,
        match=r"1 broken links or special files \(train/b/gone\.png\); .*already read \(train/a/a_link\)",
    ):
        assert np.bincount(loaded(root, validation=0.0).train.targets).tolist() == [11, 10]


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path)
    picture(root / "train" / "a" / "shut" / "x.png", 0)
    scan = os.scandir

    def denied(path: Path) -> Any:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    refused(root, "train/a/shut", "Permission denied")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Validation"])
def test_the_usual_names_of_a_validation_split_are_read(tmp_path: Path, name: str) -> None:
    by_split = values(loaded(tree(tmp_path, splits=("train", name, "test"))))
    assert by_split == {split: list(range(20)) for split in ("train", "val", "test")}


def test_splits_of_other_spellings_are_read_and_folders_beside_them_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path, splits=("Training", "testing", "extra"))
    with pytest.warns(UserWarning, match=": extra, which are not splits"):
        assert len(loaded(root, validation=0.0).train) == 20
    picture(root / "valid" / "a" / "0.png", 0)
    picture(root / "val" / "a" / "0.png", 0)
    refused(root, "more than one validation split: val, valid")


def test_a_class_may_be_called_training(tmp_path: Path) -> None:
    tree(tmp_path, splits=("",), classes="a")
    picture(tmp_path / "training" / "0.png", 5)
    assert loaded(tmp_path).outputs == ("a", "training")


def test_what_is_passed_over_is_counted_by_its_kind(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for name in ("x.gif", "y.gif", "z.avif", "README"):
        (root / "test" / "b" / name).write_bytes(b"")
    picture(root / "train" / "a" / ".ipynb_checkpoints" / "00.png", 0)
    picture(root / "train" / "b" / ".old.png", 0)
    picture(root / "train" / "beside.png", 0)
    with pytest.warns(UserWarning, match="Skipped in") as caught:
        dataset = loaded(root, validation=0.0)
    (text,) = [str(warning.message) for warning in caught]
    assert "2 hidden (train/a/.ipynb_checkpoints, train/b/.old.png)" in text
    assert "1 files outside class folders (train/beside.png)" in text
    assert "4 files that do not end in" in text
    assert "2 .gif, 1 without a suffix, 1 .avif" in text
    assert [len(dataset.train), len(dataset.test)] == [20, 20]


def test_what_is_to_be_typed_names_a_broken_image_of_any_letters(tmp_path: Path) -> None:
    name = "train/a/it's [new], 50 %.png"
    picture(tree(tmp_path) / name, 3)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="1 of 41 examples") as caught:
        loaded(tmp_path).check()
    _, setting = shlex.split(caught.value.next_step[caught.value.next_step.index("--set") :])
    recipe = recipes.read({"data": {"name": "imagefolder", "dir": str(tmp_path)}}, [setting])
    load(recipe.data, seed=0).check()
