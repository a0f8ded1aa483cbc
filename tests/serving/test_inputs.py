"""Tensors of a request as inputs of the network, of every kind of modality."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from meaning import image_modality
from texts import tokenizer_in

from sdcompress.errors import InputError
from sdcompress.modalities.table import Table
from sdcompress.modalities.text import Text
from sdcompress.serving.errors import TooLargeError
from sdcompress.serving.inputs import RAW, InputReader
from sdcompress.serving.protocol.tensors import Tensor


def reader(modality, **limits: int) -> InputReader:
    return InputReader(modality, **({"most_rows": 8, "decoded_bytes": 2**20} | limits))


def raw(*elements: str | bytes) -> dict[str, Tensor]:
    data = tuple(one.encode() if isinstance(one, str) else one for one in elements)
    return {RAW: Tensor("BYTES", (len(data),), data)}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return Text.of(tokenizer_in(tmp_path_factory.mktemp("tokenizer")), max_length=20)


def test_texts_are_tokenised_and_padded_to_one_of_few_lengths(text: Text) -> None:
    # [CLS] good film [SEP] is 4 tokens: padded to 8; 12 tokens to 16; the longest is cut to 20
    lengths = {}
    for words in (2, 6, 10, 15, 40):
        arrays = reader(text).read(raw(" ".join(["good"] * words))).arrays
        lengths[words] = arrays["input_ids"].shape[1]
        assert arrays["attention_mask"].sum() == min(words + 2, 20)
    assert lengths == {2: 8, 6: 8, 10: 16, 15: 20, 40: 20}


def test_padding_is_the_tokenizers_and_masked(tmp_path: Path) -> None:
    modality = Text.of(tokenizer_in(tmp_path), max_length=20, token_types=True)
    inputs = modality.prepare(["good film"])
    padded = modality.padded(inputs, 8).arrays
    assert padded["input_ids"].tolist() == [[2, 4, 6, 3, 0, 0, 0, 0]]
    assert padded["attention_mask"].tolist() == [[1] * 4 + [0] * 4]
    assert padded["token_type_ids"].tolist() == [[0] * 8]
    assert modality.padded(inputs, 4) is inputs


def test_prepared_tokens_are_padded_and_bounded(text: Text) -> None:
    def tokens(length: int) -> dict[str, Tensor]:
        one = Tensor("INT64", (1, length), np.ones((1, length), np.int64))
        return {"input_ids": one, "attention_mask": one}

    assert reader(text).read(tokens(3)).arrays["input_ids"].tolist() == [[1, 1, 1] + [text.padding] * 5]
    for length in (0, 21):
        with pytest.raises(InputError, match=f"have a length of {length}"):
            reader(text).read(tokens(length))


def test_two_texts_are_a_json_list(tmp_path: Path) -> None:
    pairs = Text.of(tokenizer_in(tmp_path), columns=("one", "two"), token_types=True)
    arrays = reader(pairs).read(raw(json.dumps(["good", "film"]))).arrays
    assert arrays["token_type_ids"].sum() == 2  # film [SEP]
    for wrong in ("good", '"good"', '["good"]', '["good", 1]', '["", "film"]', b"\xff"):
        with pytest.raises(InputError, match="raw example 0"):
            reader(pairs).read(raw(wrong))


def test_what_is_no_text(text: Text) -> None:
    with pytest.raises(InputError, match=r"raw example 1 cannot be used: The text is not in UTF-8"):
        reader(text).read(raw("good", b"\xff\xfe"))
    with pytest.raises(InputError, match="The text is empty"):
        reader(text).read(raw("  "))
    with pytest.raises(InputError):
        reader(text).read({RAW: Tensor("UINT8", (1, 2, 2, 1), np.zeros((1, 2, 2, 1), np.uint8))})


def test_rows_of_tables_are_json_objects_never_files(tmp_path: Path) -> None:
    table = Table(numbers=("age",), mean=(40.0,), std=(10.0,), categories=("job",), values=(("cook",),))
    row = json.dumps({"age": 50, "job": "cook"})
    (tmp_path / "row.json").write_text(row)
    arrays = reader(table).read(raw(row)).arrays
    assert arrays["numbers"].tolist() == [[1.0]]
    assert arrays["categories"].tolist() == [[2]]
    for wrong in (
        json.dumps(str(tmp_path / "row.json")),
        "[1]",
        "{",
        "[" * 100_000,
        '{"age": 1}',
        '{"age": NaN, "job": 1}',
    ):
        with pytest.raises(InputError, match=r"raw example 0|cannot be used"):
            reader(table).read(raw(wrong))


def test_names_rows_and_metadata() -> None:
    images = reader(image_modality((3, 4, 5)))
    assert [one["shape"] for one in images.metadata()] == [[-1], [-1, 3, 4, 5]]
    assert images.longest is None
    tensor = Tensor("FP32", (9, 3, 4, 5), np.zeros((9, 3, 4, 5), np.float32))
    with pytest.raises(TooLargeError, match="has 9 rows"):
        images.is_raw({"input": tensor})
    with pytest.raises(InputError, match="The inputs are image"):
        images.is_raw({"image": tensor})
    assert not images.is_raw({"input": Tensor("FP32", (8, 3, 4, 5), tensor.data[:8])})
    assert images.is_raw(raw("a"))
