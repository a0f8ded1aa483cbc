"""Datasets that save_to_disk wrote: the values in them, which columns and splits are taken, what is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcompress.data import load
from sdcompress.data.samples import Dataset
from sdcompress.errors import DataError, MissingExtraError, RecipeError
from sdcompress.schema.recipe import Data, ModalitySection

datasets = pytest.importorskip("datasets")

CLASSES = datasets.ClassLabel(names=["even", "odd"])


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    datasets.disable_progress_bars()


SIZE = ModalitySection(image_size=28)


def image(value: int, mode: str = "RGB") -> bytes:
    """An even picture of 48x40 (height x width)."""
    file = io.BytesIO()
    Image.new(mode, (40, 48), value if mode == "L" else (value,) * 3).save(file, "png")
    return file.getvalue()


def rows(values, *, image_column: str = "image", label_column: str = "label", label=CLASSES, **more):
    """A picture of each brightness; odd ones are of class 1. ``more``: columns, each a feature and its values."""
    values = list(values)
    content = {image_column: [{"bytes": image(v), "path": None} for v in values], label_column: [v % 2 for v in values]}
    features = {image_column: datasets.Image(), label_column: label}
    for name, (feature, column) in more.items():
        features[name], content[name] = feature, column
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def saved(root: Path, **splits) -> Path:
    datasets.DatasetDict(splits or {name: rows(range(20)) for name in ("train", "test")}).save_to_disk(root)
    return root


def loaded(root: Path, **settings: object) -> Dataset:
    return load(Data(name="huggingface", dir=str(root), **settings), seed=0, modality=SIZE)


def brightness(samples) -> list[int]:
    return samples.examples(np.arange(len(samples)))[:, 0, 0, 0].tolist()


def refused(root: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        loaded(root)
    assert caught.value.allowed
    assert caught.value.next_step
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_single_dataset_is_split(tmp_path: Path, wrapped: bool) -> None:
    single = rows(range(20))
    (datasets.DatasetDict(whole=single) if wrapped else single).save_to_disk(tmp_path)
    dataset = loaded(tmp_path, validation=0.25)
    by_split = [brightness(samples) for samples in (dataset.train, dataset.val, dataset.test)]
    assert [len(part) for part in by_split] == [12, 4, 4]
    assert sorted(value for part in by_split for value in part) == list(range(20))
    assert dataset.train.targets.tolist() == [value % 2 for value in by_split[0]]
    assert dataset.outputs == ("even", "odd")
    assert dataset.modality.shape == (3, 28, 28)
    assert not dataset.train.in_memory


@pytest.mark.parametrize("validation", ["validation", "valid", "val"])
def test_splits_on_disk_are_kept_and_others_passed_over(tmp_path: Path, validation: str) -> None:
    splits = {"train": rows(range(20)), validation: rows(range(30, 36)), "test": rows(range(40, 44))}
    dataset = loaded(saved(tmp_path, **splits, unlabelled=rows(range(2))))
    assert brightness(dataset.train) == list(range(20))
    assert brightness(dataset.val) == list(range(30, 36))
    assert brightness(dataset.test) == list(range(40, 44))


def test_images_are_decoded_as_those_of_a_folder_are(tmp_path: Path) -> None:
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, 32:96] = 255  # after 64 -> 32 pixels of height, columns 16 to 48 of 64 are white; the crop is 18 to 46
    turned = Image.new("RGB", (60, 30))
    turned.putpixel((0, 0), (255, 255, 255))
    turned.paste((90, 90, 90), (20, 5, 40, 25))
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright: the package itself would turn it
    file = io.BytesIO()
    turned.save(file, "png", exif=exif)
    pictures = [Image.fromarray(stripes), Image.new("L", (40, 40), 200), {"bytes": file.getvalue(), "path": "x.png"}]
    features = datasets.Features({"image": datasets.Image(), "label": CLASSES})
    train = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 0]}, features=features)
    dataset = loaded(saved(tmp_path / "hf", train=train, test=rows(range(2))), validation=0.0)
    decoded = dataset.train.examples(np.array([2, 0, 1]))
    assert (decoded[1] == 255).all()
    assert decoded[2, 0, 0].tolist() == [200, 200, 200]
    for name, content in (
        ("train/a", file.getvalue()),
        ("train/b", image(1)),
        ("test/a", image(0)),
        ("test/b", image(1)),
    ):
        (tmp_path / "files" / name).mkdir(parents=True)
        (tmp_path / "files" / name / "0.png").write_bytes(content)
    beside = load(Data(name="imagefolder", dir=str(tmp_path / "files"), validation=0.0), seed=0, modality=SIZE)
    np.testing.assert_array_equal(decoded[0], beside.train.examples(np.array([0]))[0])


def test_a_dataset_in_many_files_with_a_format_is_fetched_in_any_order_by_threads(tmp_path: Path) -> None:
    train = rows(range(200)).with_format("numpy", columns=["label"])
    datasets.DatasetDict(train=train, test=rows(range(2))).save_to_disk(tmp_path, num_shards={"train": 7, "test": 1})
    dataset = loaded(tmp_path, validation=0.0)
    orders = [np.random.default_rng(seed).integers(0, 200, 16) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for order, fetched in zip(orders, pool.map(dataset.train.examples, orders), strict=True):
            assert fetched[:, 0, 0, 0].tolist() == order.tolist()


def test_rows_that_were_chosen_and_shuffled_before_saving_are_those_that_come(tmp_path: Path) -> None:
    chosen = rows(range(20)).select([7, 3, 4, 12])
    dataset = loaded(saved(tmp_path, train=chosen, test=rows(range(2))), validation=0.0)
    assert brightness(dataset.train) == [7, 3, 4, 12]
    assert dataset.train.targets.tolist() == [1, 1, 0, 0]


def test_images_that_were_files_are_in_the_dataset_once_it_is_saved(tmp_path: Path) -> None:
    file = tmp_path / "7.png"
    file.write_bytes(image(7))
    features = datasets.Features({"image": datasets.Image(), "label": CLASSES})
    train = datasets.Dataset.from_dict({"image": [str(file)] * 2, "label": [1, 0]}, features=features)
    saved(tmp_path / "hf", train=train, test=rows(range(2)))
    file.unlink()
    assert brightness(loaded(tmp_path / "hf", validation=0.0).train) == [7, 7]


def test_integers_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    for name in ("label", "labels", "fine_label"):
        numbered = {
            split: rows(range(6), label_column=name, label=datasets.Value("uint8")) for split in ("train", "test")
        }
        dataset = loaded(saved(tmp_path / name, **numbered), validation=0.0)
        assert dataset.outputs == ("0", "1")
        assert dataset.train.targets.tolist() == [0, 1, 0, 1, 0, 1]


def test_of_several_columns_the_one_with_the_usual_name_is_taken(tmp_path: Path) -> None:
    coarse = datasets.ClassLabel(names=["a"])
    other = [{"bytes": image(99), "path": None}] * 4
    more = {
        "coarse_label": (coarse, [0] * 4),
        "mask": (datasets.Image(), other),
        "id": (datasets.Value("int64"), [9] * 4),
    }
    train = rows(range(4), image_column="img", label_column="fine_label", **more)
    dataset = loaded(saved(tmp_path, train=train, test=train), validation=0.0)
    assert brightness(dataset.train) == [0, 1, 2, 3]
    assert dataset.outputs == ("even", "odd")


def test_what_is_not_clear_lists_the_columns_and_says_how_to_choose(tmp_path: Path) -> None:
    pictures = [{"bytes": image(99), "path": None}] * 4

    def check(name: str, train, *words: str) -> None:
        train.save_to_disk(tmp_path / name)
        refused(tmp_path / name, *words)

    second = {"coarse": (CLASSES, [0] * 4)}
    check(
        "two classes", rows(range(4), label_column="kind", **second),
        "more than one label column: kind, coarse", "image (Image), kind (ClassLabel)", "rename_column(", "'label')",
    )  # fmt: skip
    named = {"labels": (datasets.Value("int8"), [0] * 4)}
    check("two names", rows(range(4), **named), "label, labels", "labels (int8)", "remove_columns('COLUMN')")
    check("floats", rows(range(4), label=datasets.Value("float32")), "no label column", "class_encode_column")
    check("text", rows(range(4)).remove_columns("label"), "no label column", "Its columns are image (Image).")
    check(
        "no image", rows(range(4)).remove_columns("image"), "no image column", "cast_column('COLUMN', datasets.Image())"
    )
    masks = {"mask": (datasets.Image(), pictures)}
    check(
        "two images", rows(range(4), image_column="photo", **masks),
        "more than one image column: photo, mask", "rename_column('COLUMN', 'image')",
    )  # fmt: skip


def test_the_advice_for_an_unclear_column_works(tmp_path: Path) -> None:
    rows(range(20), label_column="kind", coarse=(CLASSES, [0] * 20)).save_to_disk(tmp_path / "one")
    refused(tmp_path / "one", "rename_column")
    datasets.load_from_disk(tmp_path / "one").rename_column("kind", "label").save_to_disk(tmp_path / "two")
    assert loaded(tmp_path / "two").outputs == ("even", "odd")


def test_splits_that_are_missing_or_differ_are_refused(tmp_path: Path) -> None:
    train = rows(range(4))
    refused(saved(tmp_path / "a", train=train, validation=train), "no test", "rename validation to test")
    refused(saved(tmp_path / "b", one=train, two=train), "no train and no test", "one, two")
    refused(saved(tmp_path / "c", train=train, test=train, val=train, valid=train), "val, valid")
    other = rows(range(4), label=datasets.ClassLabel(names=["odd", "even"]))
    refused(saved(tmp_path / "d", train=train, test=other), "different classes")


def test_labels_out_of_range_or_with_gaps_are_refused(tmp_path: Path) -> None:
    numbers = datasets.Value("int64")
    test = rows(range(4), label=numbers).remove_columns("label").add_column("label", [0, 1, -1, 0])
    place = saved(tmp_path / "a", train=rows(range(4), label=numbers), test=test)
    refused(place, f"Row 2 of the split 'test' of {place} has the label -1", "0 to 1", "train_test_split")
    gaps = rows(range(4)).remove_columns("label").add_column("label", [0, 1, 3, 999_999_999])
    refused(saved(tmp_path / "b", train=gaps, test=gaps), "has the label 2; 999999996 of the 1000000000")


def test_a_class_that_is_named_need_not_occur(tmp_path: Path) -> None:
    rows(range(20), label=datasets.ClassLabel(names=["even", "odd", "neither"])).save_to_disk(tmp_path)
    assert loaded(tmp_path).outputs == ("even", "odd", "neither")


def test_rows_without_image_or_label_are_refused(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": CLASSES})
    complete = {"bytes": image(0), "path": None}

    def check(name: str, pictures: list, labels: list, *words: str) -> None:
        content = {"image": pictures, "label": labels}
        datasets.Dataset.from_dict(content, features=features).save_to_disk(tmp_path / name)
        refused(tmp_path / name, *words, "Dataset.filter")

    check("a", [complete, complete, None], [0, 1, 0], "Row 2 of the split 'train'", "no image")
    check("b", [complete, complete, complete], [0, None, 0], "Row 1 of the split 'train'", "no label")


def test_a_broken_image_is_named_when_it_is_decoded(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": CLASSES})
    for number, content in enumerate((b"", b"no image", image(0)[:60])):
        pictures = [{"bytes": image(0), "path": None}, {"bytes": content, "path": "x.png"}]
        train = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1]}, features=features)
        dataset = loaded(saved(tmp_path / str(number), train=train, test=rows(range(2))), validation=0.0)
        assert len(dataset.train.examples(np.array([0]))) == 1
        with pytest.raises(DataError, match=r"(?s)train/1 cannot be used.*data\.exclude=\[.train/1.\]"):
            dataset.train.examples(np.array([1]))


def test_folders_without_a_dataset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere, which is not a folder"):
        loaded(tmp_path / "nowhere")
    with pytest.raises(DataError, match="which is not a folder"):
        loaded(Path("hf://datasets/some/name"))
    (tmp_path / "data.parquet").write_bytes(b"")
    refused(tmp_path, "dataset_dict.json and state.json are missing", "save_to_disk('FOLDER')")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    (arrow,) = (tmp_path / "train").glob("*.arrow")
    state = tmp_path / "train" / "state.json"
    for file in (arrow, state, tmp_path / "train" / "dataset_info.json", tmp_path / "dataset_dict.json"):
        complete = file.read_bytes()
        for length in (0, len(complete) // 2):
            file.write_bytes(complete[:length])
            refused(tmp_path, f"The dataset in {tmp_path} cannot be read", "save the dataset again")
        file.write_bytes(complete)
    fields = json.loads(state.read_text())
    for key in ("_data_files", "_split", "_fingerprint"):
        state.write_text(json.dumps({name: value for name, value in fields.items() if name != key}))
        refused(tmp_path, f"The dataset in {tmp_path} cannot be read")
    arrow.unlink()
    refused(tmp_path, f"The dataset in {tmp_path} cannot be read")


def test_the_fingerprint_is_that_of_sizes_labels_and_names_not_of_files(tmp_path: Path) -> None:
    first = loaded(saved(tmp_path / "one")).fingerprint
    splits = datasets.DatasetDict({name: rows(range(20)) for name in ("train", "test")})
    splits.save_to_disk(tmp_path / "two", num_shards={"train": 3, "test": 1})
    assert loaded(tmp_path / "two").fingerprint == first
    longer = {"bytes": image(19) + b"\0", "path": None}, 19
    named = {"bytes": image(19), "path": "19.png"}, 19
    relabelled = {"bytes": image(19), "path": None}, 18
    for number, (last, label) in enumerate((longer, named, relabelled)):
        pictures = [{"bytes": image(value), "path": None} for value in range(19)] + [last]
        content = {"image": pictures, "label": [value % 2 for value in (*range(19), label)]}
        test = datasets.Dataset.from_dict(content, features=splits["test"].features)
        assert loaded(saved(tmp_path / f"other{number}", train=splits["train"], test=test)).fingerprint != first


def test_the_folder_must_be_named() -> None:
    with pytest.raises(RecipeError, match=r"data\.dir"):
        load(Data(name="huggingface"), seed=0)


def test_who_lacks_the_package_gets_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError) as caught:
        loaded(tmp_path)
    assert "'datasets'" in caught.value.problem
    assert caught.value.next_step == "pip install 'sdcompress[huggingface]'"


def test_neither_the_package_nor_torch_comes_with_the_file_and_torch_not_with_the_data(tmp_path: Path) -> None:
    saved(tmp_path)
    program = f"""
import sys
from sdcompress.data import load
from sdcompress.data.sources import huggingface
from sdcompress.schema.recipe import Data, ModalitySection
print("datasets" in sys.modules, len(load(Data(name="huggingface", dir={str(tmp_path)!r}), seed=0).train))
print("torch" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "18", "False"]


def test_an_image_is_left_out_by_its_split_and_row(tmp_path: Path) -> None:
    root = saved(tmp_path, train=rows(range(8)), test=rows(range(4)))
    dataset = loaded(root, validation=0.0, exclude=["test/2"])
    assert len(dataset.test) == 3
    assert len(dataset.train) == 8
