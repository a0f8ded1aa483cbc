from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdcompress import tasks
from sdcompress.data.assemble import assemble
from sdcompress.data.image_arrays import image_source
from sdcompress.data.samples import ArraySamples, Dataset, Samples
from sdcompress.data.source import Source
from sdcompress.errors import DataError, RecipeError
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.schema.recipe import Data, ModalitySection, TaskSection
from sdcompress.tasks.classification import Classification

PREPROCESS = Preprocess(channels=1, mean=(0.5,), std=(0.5,))
CLASSES = ("a", "b")


def arrays(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Image i is filled with ``first + i``: its identity. Labels alternate."""
    images = np.zeros((count, 2, 2, 1), np.uint8) + np.arange(first, first + count, dtype=np.uint8)[:, None, None, None]
    return images, np.arange(count) % 2


def identities(samples: Samples) -> list[int]:
    return samples.examples(np.arange(len(samples)))[:, 0, 0, 0].tolist()


def without_test() -> Source:
    return image_source(CLASSES, PREPROCESS, arrays(0, 100))


def with_test() -> Source:
    return image_source(CLASSES, PREPROCESS, arrays(0, 100), arrays(100, 40))


def test_without_a_test_split_a_fifth_is_held_out_and_no_image_is_in_two_splits() -> None:
    found = assemble(Data(validation=0.25), without_test(), seed=0)
    train, val, test = (identities(samples) for samples in (found.train, found.val, found.test))
    assert [len(train), len(val), len(test)] == [60, 20, 20]
    assert sorted(train + val + test) == list(range(100))
    for samples in (found.train, found.val, found.test):
        assert samples.targets.tolist() == [image % 2 for image in identities(samples)]
        assert np.bincount(samples.targets).tolist() == [len(samples) // 2] * 2


def test_a_published_test_split_is_left_alone() -> None:
    found = assemble(Data(), with_test(), seed=0)
    assert identities(found.test) == list(range(100, 140))
    assert sorted(identities(found.train) + identities(found.val)) == list(range(100))


def test_a_published_validation_split_is_left_alone() -> None:
    source = image_source(CLASSES, PREPROCESS, arrays(0, 20), arrays(20, 10))
    source = Source(
        CLASSES, source.modality, source.train, "digest", val=ArraySamples(*arrays(30, 10)), test=source.test
    )
    found = assemble(Data(validation=0.5), source, seed=0)
    assert identities(found.val) == list(range(30, 40))
    assert identities(found.train) == list(range(20))


def test_the_seed_changes_validation_but_never_test() -> None:
    one, two = (assemble(Data(), without_test(), seed=seed) for seed in (1, 2))
    assert identities(one.test) == identities(two.test)
    assert identities(one.val) != identities(two.val)


def test_limits_do_not_touch_validation() -> None:
    full = assemble(Data(), with_test(), seed=0)
    limited = assemble(Data(train_limit=10, test_limit=6), with_test(), seed=0)
    assert identities(limited.val) == identities(full.val)
    assert set(identities(limited.train)) < set(identities(full.train))
    assert np.bincount(limited.train.targets).tolist() == [5, 5]
    assert np.bincount(limited.test.targets).tolist() == [3, 3]


def test_a_smaller_limit_is_part_of_a_larger_one() -> None:
    small, large = (assemble(Data(train_limit=limit), with_test(), seed=0) for limit in (10, 30))
    assert set(identities(small.train)) < set(identities(large.train))


def rare() -> Source:
    """Of 100 images every tenth is of class b."""
    images, _ = arrays(0, 100)
    return image_source(CLASSES, PREPROCESS, (images, (np.arange(100) % 10 == 0).astype(np.int64)), arrays(100, 40))


def test_some_of_each_stratum_or_all_that_it_has() -> None:
    def chosen(count: int, seed: int = 0) -> Dataset:
        return assemble(Data(validation=0.2, train_per_stratum=count), rare(), seed=seed)

    assert [np.bincount(chosen(count).train.targets).tolist() for count in (3, 8, 100)] == [[3, 3], [8, 8], [72, 8]]
    assert set(identities(chosen(3).train)) < set(identities(chosen(8).train))
    assert identities(chosen(3).val) == identities(chosen(8).val)
    assert identities(chosen(3).train) != identities(chosen(3, seed=1).train)
    assert chosen(3).fingerprint != chosen(8).fingerprint


def test_of_each_stratum_needs_strata_and_no_other_limit() -> None:
    images, _ = arrays(0, 100)
    numbers = np.arange(100, dtype=np.float32)[:, None]
    source = replace(image_source(("n",), PREPROCESS, (images, numbers)), task="regression")
    with pytest.raises(RecipeError, match="'regression' have no strata"):
        assemble(Data(train_per_stratum=2), source, seed=0, task=TaskSection(name="regression"))
    with pytest.raises(ValueError, match="choose one"):
        Data(train_limit=10, train_per_stratum=2)


def test_a_limit_above_what_is_there_takes_all() -> None:
    assert len(assemble(Data(test_limit=1000), with_test(), seed=0).test) == 40


def test_validation_may_be_given_up() -> None:
    found = assemble(Data(validation=0.0), with_test(), seed=0)
    assert len(found.train) == 100
    with pytest.raises(DataError, match="empty"):
        found.split("validation")


def test_training_may_not() -> None:
    with pytest.raises(RecipeError, match=r"validation is 0\.999"):
        assemble(Data(validation=0.999), with_test(), seed=0)


class Several(Classification):
    """A task without strata, whose targets are sets of labels, uint8 [N, K]."""

    def check_targets(self, targets: np.ndarray) -> None:
        assert targets.shape[1:] == (len(self.outputs),)

    def strata(self, targets: np.ndarray) -> None:  # type: ignore[override]
        """There are none."""


def several(count: int) -> Source:
    """Target i holds the bits of i."""
    images, numbers = arrays(0, count)[0], np.arange(count)
    targets = (numbers[:, None] >> np.arange(7) & 1).astype(np.uint8)
    return image_source(tuple("abcdefg"), PREPROCESS, (images, targets), task="several")


def test_targets_of_any_shape_are_split_without_strata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "task_class", lambda name: Several)
    found = assemble(Data(validation=0.25), several(100), seed=0, task=TaskSection(name="several"))
    parts = (found.train, found.val, found.test)
    assert [len(samples) for samples in parts] == [60, 20, 20]
    assert sorted(one for samples in parts for one in identities(samples)) == list(range(100))
    for samples in parts:
        assert (samples.targets @ (1 << np.arange(7))).tolist() == identities(samples)
    again = assemble(Data(validation=0.25), several(100), seed=0, task=TaskSection(name="several"))
    assert (again.fingerprint, identities(again.val)) == (found.fingerprint, identities(found.val))
    source = several(100)
    source.train.targets[5] ^= 1
    assert (
        assemble(Data(validation=0.25), source, seed=0, task=TaskSection(name="several")).fingerprint
        != found.fingerprint
    )
    lacking = replace(several(100), left_out={"train": {identities(found.train)[3]}})
    filled = assemble(Data(validation=0.25, exclude=("x",)), lacking, seed=0, task=TaskSection(name="several")).train
    assert identities(filled)[3] != identities(found.train)[3] in identities(found.train)


def test_another_task_than_that_of_the_targets_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(RecipeError, match=r"(?s)task is 'multilabel'.*'classification'") as caught:
        assemble(Data(), without_test(), seed=0, task=TaskSection(name="multilabel"))
    assert caught.value.allowed == "classification"
    assert "--set task=classification" in caught.value.next_step
    with pytest.raises(RecipeError, match="no parameter 'threshold'"):
        assemble(
            Data(),
            without_test(),
            seed=0,
            task=TaskSection.model_validate({"name": "classification", "threshold": 0.5}),
        )


def fingerprint(data: Data = Data(), source: Source | None = None, seed: int = 0) -> str:  # noqa: B008 - frozen
    return assemble(data, source or with_test(), seed=seed).fingerprint


def changed_pixel() -> Source:
    images, labels = arrays(0, 100)
    images[17, 1, 0, 0] ^= 1
    return image_source(CLASSES, PREPROCESS, (images, labels), arrays(100, 40))


def changed_label() -> Source:
    images, labels = arrays(0, 100)
    labels[[16, 17]] = labels[[17, 16]]
    return image_source(CLASSES, PREPROCESS, (images, labels), arrays(100, 40))


@pytest.mark.parametrize(
    "other",
    [
        fingerprint(seed=1),
        fingerprint(Data(validation=0.2)),
        fingerprint(Data(train_limit=50)),
        fingerprint(Data(test_limit=20)),
        fingerprint(Data(name="mnist")),
        fingerprint(source=changed_pixel()),
        fingerprint(source=changed_label()),
        fingerprint(source=image_source(("a", "c"), PREPROCESS, arrays(0, 100), arrays(100, 40))),
        fingerprint(source=image_source(CLASSES, Preprocess(channels=1, mean=(0.4,), std=(0.5,)), arrays(0, 100))),
    ],
)
def test_the_fingerprint_tells_two_data_sets_or_splits_apart(other: str) -> None:
    assert fingerprint() == fingerprint()
    assert len(other) == 64
    assert other != fingerprint()


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_out_of_range_is_refused(label: int) -> None:
    images, labels = arrays(0, 10)
    labels[3] = label
    with pytest.raises(DataError, match=str(label)):
        assemble(Data(), image_source(CLASSES, PREPROCESS, (images, labels)), seed=0)


def test_an_empty_or_one_class_or_differently_coloured_source_is_refused() -> None:
    def refused(source: Source, why: str) -> None:
        with pytest.raises(DataError, match=why):
            assemble(Data(), source, seed=0)

    refused(image_source(CLASSES, PREPROCESS, arrays(0, 10), arrays(0, 0)), "holds no sample")
    images, labels = arrays(0, 10)
    refused(image_source(("a",), PREPROCESS, (images, 0 * labels)), "1 class")
    colour = ArraySamples(np.repeat(images, 3, axis=3), labels)
    refused(replace(with_test(), train=colour), "2x2x3")


def test_what_is_returned_is_ready() -> None:
    found = assemble(Data(name="mnist"), with_test(), seed=0)
    assert isinstance(found, Dataset)
    assert (found.name, found.outputs, found.modality.tensors[0].shape) == ("mnist", CLASSES, ("batch", 1, 2, 2))


def test_columns_that_the_source_does_not_read_are_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"data.columns is \[age\], which .* does not follow: its examples have no col"
    ):
        assemble(Data(columns=("age",)), with_test(), seed=0)
    with pytest.raises(RecipeError, match="it reads age, city"):
        assemble(Data(columns=("age",)), replace(with_test(), columns=("age", "city")), seed=0)
    assemble(Data(columns=("age",)), replace(with_test(), columns=("age",)), seed=0)


def test_the_fingerprint_tells_two_splits_with_the_same_labels_apart() -> None:
    images, _ = arrays(0, 100)
    source = image_source(CLASSES, PREPROCESS, (images, np.repeat([0, 1], 50)), arrays(100, 40))
    one, two = (assemble(Data(validation=0.2), source, seed=seed) for seed in (1, 2))
    assert one.val.targets.tolist() == two.val.targets.tolist()
    assert one.fingerprint != two.fingerprint


def test_examples_and_fingerprint_follow_the_recipes_modality() -> None:
    own, other = (
        assemble(Data(), with_test(), seed=0, modality=ModalitySection(**new)) for new in ({}, {"image_size": 4})
    )
    assert own.train.examples(np.array([0])).shape == (1, 2, 2, 1)
    assert other.train.examples(np.array([0])).shape == (1, 4, 4, 1)
    assert other.modality.tensors[0].shape == ("batch", 1, 4, 4)
    assert other.fingerprint != own.fingerprint


def test_an_image_that_is_left_out_keeps_its_place() -> None:
    whole = assemble(Data(validation=0.25), without_test(), seed=0)
    source = without_test()
    for gone in range(100):
        lacking = replace(source, left_out={"train": {gone}})
        found = assemble(Data(validation=0.25, exclude=(str(gone),)), lacking, seed=0)
        train, before = identities(found.train), identities(whole.train)
        held = [*identities(found.val), *identities(found.test)]
        assert gone not in train + held
        assert len(train) == len(before)
        assert held == [i for i in [*identities(whole.val), *identities(whole.test)] if i != gone]
        assert found.train.targets.tolist() == whole.train.targets.tolist()
        changed = [(a, b) for a, b in zip(before, train, strict=True) if a != b]
        assert [a for a, _ in changed] == [gone] * (gone in before)  # the others are where they were
        assert found.layout == whole.layout
        assert found.fingerprint != whole.fingerprint


def test_a_set_without_names_can_leave_nothing_out() -> None:
    with pytest.raises(RecipeError, match="no names"):
        assemble(Data(exclude=("0.png",)), with_test(), seed=0)


def test_a_class_may_not_be_left_out_altogether() -> None:
    lacking = replace(with_test(), left_out={"train": set(range(0, 100, 2))})
    with pytest.raises(RecipeError, match="no training sample in the stratum 0"):
        assemble(Data(exclude=("x",)), lacking, seed=0)
