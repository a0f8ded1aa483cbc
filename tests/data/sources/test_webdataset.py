"""Shards: the values in them, the way to them by position, and what is refused."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdcompress.data import load
from sdcompress.data.samples import Dataset
from sdcompress.errors import DataError, RecipeError
from sdcompress.schema.recipe import Data, ModalitySection

Files = Iterable[tuple[str, bytes]]


SIZE = ModalitySection(image_size=28)


def image(value: int, kind: str = "png", mode: str = "RGB") -> bytes:
    """An even picture of 48x40 (height x width)."""
    file = io.BytesIO()
    Image.new(mode, (40, 48), value if mode == "L" else (value,) * 3).save(file, kind)
    return file.getvalue()


def shard(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def pairs(values: Iterable[int]) -> list[tuple[str, bytes]]:
    """A picture of each brightness, under its brightness as the key; odd ones are of class 1."""
    return [
        file
        for value in values
        for file in ((f"{value:03}.png", image(value)), (f"{value:03}.cls", str(value % 2).encode()))
    ]


def tree(root: Path, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """20 pictures, brightness 0 to 19, in two shards for each split."""
    for split in splits:
        shard(root / split / "a-000.tar", pairs(range(12)))
        shard(root / split / "a-001.tar", pairs(range(12, 20)))
    return root


def loaded(root: Path, **settings: object) -> Dataset:
    return load(Data(name="webdataset", dir=str(root), **settings), seed=0, modality=SIZE)


def values(dataset: Dataset) -> dict[str, list[int]]:
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {name: samples.examples(np.arange(len(samples)))[:, 0, 0, 0].tolist() for name, samples in parts.items()}


def refused(root: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        loaded(root)
    assert caught.value.allowed
    assert caught.value.next_step
    for word in words:
        assert word in str(caught.value)


def test_one_set_of_shards_is_split(tmp_path: Path) -> None:
    dataset = loaded(tree(tmp_path, splits=("",)), validation=0.25)
    by_split = values(dataset)
    assert [len(by_split[name]) for name in ("train", "val", "test")] == [12, 4, 4]
    assert sorted(value for part in by_split.values() for value in part) == list(range(20))
    assert dataset.train.targets.tolist() == [value % 2 for value in by_split["train"]]
    assert dataset.outputs == ("0", "1")
    assert dataset.modality.shape == (3, 28, 28)
    assert not dataset.train.in_memory


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_splits_on_disk_are_kept(tmp_path: Path, validation: str) -> None:
    dataset = loaded(tree(tmp_path, splits=("train", validation, "test")))
    assert values(dataset) == {name: list(range(20)) for name in ("train", "val", "test")}


def test_labels_come_from_text_or_json_and_other_members_are_passed_over(tmp_path: Path) -> None:
    files = [
        ("deep/er/one.jpeg", image(10, "jpeg")),
        ("deep/er/one.seg.png", b"a mask"),
        ("deep/er/one.txt", b"a caption"),
        ("deep/er/one.json", json.dumps({"label": 1, "cls": 0}).encode()),
        ("deep/er/._one.jpeg", b"what macOS leaves behind"),
        ("README", b"no sample"),
        ("two.cls", b" 2\n"),
        ("two.WEBP", image(20, "webp")),
        ("three.json", json.dumps({"cls": 0}).encode()),
        ("three.jpg", image(30, "jpeg")),
        ("four.png", image(200, mode="L")),
        ("four.json", b"what is not read where there is a cls"),
        ("four.cls", b"2"),
    ]
    shard(tmp_path / "train" / "a.tar", files)
    shard(tmp_path / "test" / "a.tar", pairs([0, 1]))
    dataset = loaded(tmp_path, validation=0.0)
    assert dataset.train.targets.tolist() == [1, 2, 0, 2]
    decoded = dataset.train.examples(np.arange(4))
    assert decoded[3, 0, 0].tolist() == [200, 200, 200]  # grey becomes RGB
    np.testing.assert_allclose(decoded[:, 5, 5, 0], [10, 20, 30, 200], atol=2)  # jpeg and webp lose a little


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, 32:96] = 255  # after 64 -> 32 pixels of height, columns 16 to 48 of 64 are white; the crop is 18 to 46
    file = io.BytesIO()
    Image.fromarray(stripes).save(file, "png")
    shard(tree(tmp_path) / "train" / "a-000.tar", [("x.png", file.getvalue()), ("x.cls", b"0")])
    assert (loaded(tmp_path, validation=0.0).train.examples(np.array([0])) == 255).all()


def test_members_of_a_key_need_not_follow_each_other_and_names_may_be_long(tmp_path: Path) -> None:
    long = "folder/" * 40 + "é"  # more than a plain header holds: GNU and POSIX put it into a block of its own
    for number, kind in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        path = tmp_path / "train" / f"{number}.tar"
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w", format=kind) as tar:
            tar.addfile(_folder("folder"))
            for name, content in ((f"{long}.png", image(40 + number)), ("b.cls", b"1"), ("b.png", image(50 + number))):
                _add(tar, name, content)
            _add(tar, f"{long}.cls", b"0")
    shard(tmp_path / "test" / "a.tar", pairs([0, 1]))
    dataset = loaded(tmp_path, validation=0.0)
    assert dataset.train.examples(np.arange(4))[:, 0, 0, 0].tolist() == [40, 50, 41, 51]
    assert dataset.train.targets.tolist() == [0, 1, 0, 1]


def _folder(name: str) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type = tarfile.DIRTYPE
    return header


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, np.ndarray]:
    """50 pictures of noise in three shards, as loaded and as a reader that goes through the tars from front to back."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    numbers = iter(range(50))
    for name, count in (("b", 20), ("a", 25), ("c", 5)):
        files = []
        for number in itertools.islice(numbers, count):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(file, "png")
            files += [(f"{number}.cls", str(number % 2).encode()), (f"{number}.png", file.getvalue())]
        shard(root / "train" / f"{name}.tar", files)
    shard(root / "test" / "a.tar", pairs([0, 1]))
    in_turn = []
    for path in sorted((root / "train").iterdir()):
        with tarfile.open(path, "r|") as stream:  # which cannot go back
            for member in stream:
                file = stream.extractfile(member)
                if member.name.endswith(".png"):
                    in_turn.append(np.asarray(Image.open(io.BytesIO(file.read())))[2:30, 2:30])
    return loaded(root, validation=0.0), np.stack(in_turn)


@given(order=st.lists(st.integers(0, 49), min_size=1, max_size=80))
def test_any_order_gives_what_reading_in_turn_gives(noise: tuple[Dataset, np.ndarray], order: list[int]) -> None:
    dataset, in_turn = noise
    np.testing.assert_array_equal(dataset.train.examples(np.array(order)), in_turn[order])


def test_threads_fetch_at_the_same_time(noise: tuple[Dataset, np.ndarray]) -> None:
    dataset, in_turn = noise
    orders = [np.random.default_rng(seed).integers(0, 50, 16) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for order, fetched in zip(orders, pool.map(dataset.train.examples, orders), strict=True):
            np.testing.assert_array_equal(fetched, in_turn[order])


def test_class_names_stand_in_a_file(tmp_path: Path) -> None:
    (tree(tmp_path) / "classes.txt").write_text("even number\nodd number\n\n", encoding="utf-8")
    assert loaded(tmp_path).outputs == ("even number", "odd number")
    # as Windows writes it: a byte order mark is no letter of the first name
    (tmp_path / "classes.txt").write_text("even number\r\nodd number\r\n", encoding="utf-8-sig")
    assert loaded(tmp_path).outputs == ("even number", "odd number")


def test_the_fingerprint_is_that_of_names_and_sizes(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    first = loaded(one).fingerprint
    assert loaded(two).fingerprint == first
    (two / "test" / "a-000.tar").rename(two / "test" / "a-0000.tar")
    assert loaded(two).fingerprint != first
    (two / "test" / "a-0000.tar").rename(two / "test" / "a-000.tar")
    files = pairs(range(12))
    assert files[0][0] == "000.png"
    shard(two / "test" / "a-000.tar", [("0.png", files[0][1]), ("0.cls", files[1][1]), *files[2:]])
    assert loaded(two).fingerprint != first
    # a shard is as long as before, a picture is not: the header's blocks take up the difference
    shard(two / "test" / "a-000.tar", [(files[0][0], files[0][1] + b"\0"), *files[1:]])
    assert (two / "test" / "a-000.tar").stat().st_size == (one / "test" / "a-000.tar").stat().st_size
    assert loaded(two).fingerprint != first


def test_the_fingerprint_of_a_training_refuses_other_shards(tmp_path: Path) -> None:
    first = loaded(tree(tmp_path)).fingerprint
    spec = Data(name="webdataset", dir=str(tmp_path))
    assert load(spec, seed=0, modality=SIZE, fingerprint=first).fingerprint == first
    shard(tmp_path / "train" / "a-002.tar", pairs([20]))
    with pytest.raises(DataError, match="not the one that was trained on"):
        load(spec, seed=0, modality=SIZE, fingerprint=first)


def test_folders_without_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere, which is not a folder"):
        loaded(tmp_path / "nowhere")
    refused(tmp_path, "holds no shards", "KEY.cls")
    refused(tree(tmp_path, splits=("train", "val")), "no test", "rename validation to test")
    (tmp_path / "test").mkdir()
    refused(tmp_path, f"{tmp_path / 'test'} holds no shards")
    tree(tmp_path, splits=("test", "validation"))
    refused(tmp_path, "more than one validation split: val, validation")


def test_the_folder_must_be_named() -> None:
    with pytest.raises(RecipeError, match=r"data\.dir"):
        load(Data(name="webdataset"), seed=0)


@pytest.mark.parametrize("name", ["b.tar.gz", "b.c.tgz", "b.tar.xz", "b.tar.bz2", "b.tar.zst"])
def test_compressed_shards_are_refused_unless_the_unpacked_lie_beside_them(tmp_path: Path, name: str) -> None:
    (tree(tmp_path) / "train" / name).write_bytes(b"")
    refused(tmp_path, name, "cannot be read by offset", "unpack")
    shard(tmp_path / "train" / ("b.c.tar" if "c" in name else "b.tar"), pairs([20, 21]))
    assert len(loaded(tmp_path, validation=0.0).train) == 22


@pytest.mark.parametrize(("mode", "kind"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_a_compressed_shard_by_a_wrong_name_is_named(tmp_path: Path, mode: str, kind: str) -> None:
    path = tree(tmp_path) / "train" / "b.tar"
    with tarfile.open(path, mode) as tar:
        _add(tar, "0.png", image(0))
    refused(tmp_path, f"{path} is compressed with {kind}", "unpack it to a .tar")


def test_a_shard_cut_anywhere_is_named_with_the_member(tmp_path: Path) -> None:
    path = tree(tmp_path) / "train" / "a-001.tar"
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
        picture = tar.getmember("015.png")
    for length, words in {
        0: ["is no tar"],
        100: ["is no tar"],
        picture.offset: ["truncated after its member '014.cls'"],
        picture.offset + 100: ["after its member '014.cls'"],
        picture.offset_data: ["truncated in its member '015.png'"],
        picture.offset_data + picture.size - 1: ["truncated in its member '015.png'"],
        last.offset_data + 512: ["truncated after its member '019.cls'", "end marker"],
    }.items():
        path.write_bytes(content[:length])
        refused(tmp_path, str(path), *words, "copy or write it again")


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    path = tree(tmp_path) / "train" / "a-001.tar"
    with tarfile.open(path) as tar:
        header = tar.getmember("015.png").offset
    damaged = bytearray(path.read_bytes())
    damaged[header + 3] ^= 1
    path.write_bytes(damaged)
    refused(tmp_path, f"{path} has a damaged header after its member '014.cls'")
    damaged[:8] = b"no tar  "
    path.write_bytes(damaged)
    refused(tmp_path, f"{path} is no tar")


def test_archives_joined_by_cat_are_refused(tmp_path: Path) -> None:
    path = tree(tmp_path) / "train" / "a-001.tar"
    path.write_bytes(path.read_bytes() + (tmp_path / "train" / "a-000.tar").read_bytes())
    refused(tmp_path, f"{path} has data after its end", "'019.cls'", "tar --concatenate")


def test_a_size_below_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    header = bytearray(tarfile.TarInfo("0.png").tobuf())
    header[124:136] = b"\xff" * 11 + b"\x00"  # base 256: -256 bytes, after which the next header would come before
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    path.write_bytes(bytes(header) + b"\0" * 10240)
    refused(tmp_path, f"{path} is truncated in its member '0.png'")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        _add(tar, "0.png", image(0))
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = kind, "0.png"
        tar.addfile(link)
    refused(tmp_path, "'1.png'", "is a link", "--dereference")


def test_a_shard_cut_after_it_was_opened_is_named(tmp_path: Path) -> None:
    path = tree(tmp_path) / "train" / "a-001.tar"
    dataset = loaded(tmp_path, validation=0.0)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"a-001\.tar is truncated in its member '019\.png'"):
        dataset.train.examples(np.array([19]))
    path.unlink()
    with pytest.raises(DataError, match=r"a-001\.tar cannot be read"):
        dataset.train.examples(np.array([19]))


def test_a_broken_image_is_named_when_it_is_decoded(tmp_path: Path) -> None:
    path = tree(tmp_path) / "train" / "a-001.tar"
    intact = image(0)
    deep = io.BytesIO()
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(deep, "tiff")
    for content in (b"", b"no image", intact[: len(intact) // 2], deep.getvalue()):
        shard(path, [("x/12.png", content), ("x/12.cls", b"0"), *pairs(range(13, 20))])
        dataset = loaded(tmp_path, validation=0.0)
        assert len(dataset.train.examples(np.arange(12))) == 12
        with pytest.raises(DataError) as caught:
            dataset.train.examples(np.array([12]))
        assert "train/a-001.tar/x/12.png" in str(caught.value)
        assert 'data.exclude=["train/a-001.tar/x/12.png"]' in caught.value.next_step


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("7.png", image(7))], ["key '7'", "no label"]),
        ([("d/7.cls", b"0")], ["key 'd/7'", "no image"]),
        ([("7.json", b'{"label": 0}')], ["key '7'", "no image"]),
        ([("7.png", image(7)), ("7.jpg", image(7, "jpeg"))], ["'7.png' and '7.jpg'"]),
        ([*pairs([7]), *pairs([7])], ["'007.png' and '007.png'"]),
        ([("7.png", image(7)), ("7.cls", b"cat")], ["'7.cls'", "b'cat'", "integer"]),
        ([("7.png", image(7)), ("7.cls", b"1.0")], ["'7.cls'", "b'1.0'"]),
        ([("7.png", image(7)), ("7.cls", b"")], ["'7.cls'", "b''"]),
        ([("7.png", image(7)), ("7.cls", b"9" * 50)], ["'7.cls'", "below 10^9"]),
        ([("7.png", image(7)), ("7.json", b"{")], ["'7.json'", "b'{'"]),
        ([("7.png", image(7)), ("7.json", b"[0]")], ["'7.json'"]),
        ([("7.png", image(7)), ("7.json", b'{"label": "0"}')], ["'7.json'", "integer"]),
        ([("7.png", image(7)), ("7.json", b'{"label": true}')], ["'7.json'"]),
        ([("7.png", image(7)), ("7.json", b'{"name": 0}')], ["'7.json'"]),
        ([("7.png", image(7)), ("7.cls", b"-1")], ["'7.png'", "the label -1", "0 to 1"]),
    ],
    ids=lambda value: None if isinstance(value, list) and isinstance(value[0], tuple) else "-".join(value)[:30],
)
def test_a_key_without_image_or_label_is_refused(tmp_path: Path, files: Files, words: list[str]) -> None:
    path = shard(tree(tmp_path) / "train" / "b.tar", files)
    refused(tmp_path, str(path), *words)


def test_labels_that_are_not_the_classes_are_refused(tmp_path: Path) -> None:
    tree(tmp_path)
    extra = shard(tmp_path / "test" / "b.tar", [("7.png", image(7)), ("7.cls", b"2")])
    refused(tmp_path, f"'7.png' of {extra} has the label 2", "0 to 1")
    extra.unlink()
    shard(tmp_path / "train" / "b.tar", [("7.png", image(7)), ("7.cls", b"999999999")])
    refused(tmp_path, "has the label 2; 999999997 of the 1000000000 labels")
    (tmp_path / "classes.txt").write_text("a\nb")
    refused(tmp_path, f"'7.png' of {tmp_path / 'train' / 'b.tar'} has the label 999999999", "0 to 1", "classes.txt")
    (tmp_path / "train" / "b.tar").unlink()
    (tmp_path / "classes.txt").write_text("a\nb\nc")
    refused(tmp_path, "has the label 2; 1 of the 3 labels that classes.txt names")


def test_a_file_of_class_names_with_a_fault_is_refused(tmp_path: Path) -> None:
    path = tree(tmp_path) / "classes.txt"
    path.write_text("a\n\nb")
    refused(tmp_path, f"{path} has an empty line")
    path.write_text("a\na")
    refused(tmp_path, f"{path} has a name twice: a")
    path.write_bytes(b"a\n\xff")
    with pytest.raises(DataError, match=r"classes\.txt cannot be read.*\n.*UTF-8"):
        loaded(tmp_path)


def test_an_archive_without_samples_and_one_class_are_not_enough(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", [("README.md", b"nothing here")])
    with pytest.raises(DataError, match="holds no sample"):
        loaded(tmp_path)
    shard(tmp_path / "a.tar", pairs([0, 2, 4]))
    refused(tmp_path, "1 class")


def test_a_key_may_hold_dots(tmp_path: Path) -> None:
    files = [
        (f"photo.{n}.{kind}", content)
        for n in range(20)
        for kind, content in (("PNG", image(n)), ("cls", b"%d" % (n % 2)))
    ]
    shard(tmp_path / "0.tar", [("set.info.json", b"{}"), *files])
    with pytest.warns(UserWarning, match=r"skipped members .* 1 \.info\.json"):
        dataset = loaded(tmp_path, validation=0.25)
    assert sorted(value for part in values(dataset).values() for value in part) == list(range(20))


def test_masks_of_an_image_are_no_samples_and_are_counted(tmp_path: Path) -> None:
    more = [(f"{n:03}.{kind}", b"mask") for n in range(20) for kind in ("seg.png", "seg.json", "txt")]
    shard(tmp_path / "0.tar", [*pairs(range(20)), *more])
    with pytest.warns(UserWarning, match=r"20 \.seg\.png, 20 \.seg\.json, 20 \.txt"):
        assert len(loaded(tmp_path, validation=0.0).train) == 16


def test_a_key_with_dots_needs_its_label_too(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", [*pairs(range(20)), ("a.1.png", image(0)), ("a.1.cls", b"0"), ("a.2.png", image(0))])
    with pytest.raises(DataError, match=r"'a\.2' .*no label"):
        loaded(tmp_path)


def test_an_image_is_left_out_by_the_name_of_its_member(tmp_path: Path) -> None:
    dataset = loaded(tree(tmp_path), validation=0.0, exclude=["test/a-001.tar/015.png", "train/a-000.tar/003.png"])
    parts = {"test": dataset.test, "train": dataset.train}
    shown = {name: part.examples(np.arange(len(part)))[:, 0, 0, 0].tolist() for name, part in parts.items()}
    assert shown["test"] == [value for value in range(20) if value != 15]
    assert shown["train"] == [5 if value == 3 else value for value in range(20)]  # the next of its class
    with pytest.raises(RecipeError, match=r"(?s)not in .*nothing\.png.*train/a-000\.tar/000\.png"):
        loaded(tmp_path, exclude=["nothing.png"])
