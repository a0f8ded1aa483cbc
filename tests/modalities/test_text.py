"""Texts become padded token ids, the same by every way; what cannot be used is refused."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from texts import WORDS, tokenizer_in

from sdcompress.errors import ArtifactError, DataError, InputError, UsageError
from sdcompress.modalities import restore
from sdcompress.modalities._rows import columns_of
from sdcompress.modalities.text import Text

GOOD, BAD, FILM, A = 4, 5, 6, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tokenizer_in(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def text(folder):
    return Text.of(folder, max_length=8)


def test_texts_are_padded_on_the_right_to_the_longest(text):
    inputs = text.prepare(["a good film", "Bad"])
    assert inputs.arrays["input_ids"].tolist() == [[2, A, GOOD, FILM, 3], [2, BAD, 3, 0, 0]]
    assert inputs.arrays["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert {array.dtype for array in inputs.arrays.values()} == {np.dtype(np.int64)}


def test_rows_of_padded_inputs_are_what_these_texts_alone_give(text):
    inputs = text.prepare(["a good film", "bad"])[1:]
    assert inputs.arrays["input_ids"].tolist() == [[2, BAD, 3]]
    assert inputs.arrays["attention_mask"].tolist() == [[1, 1, 1]]


def test_pairs_have_types(folder):
    pairs = Text.of(folder, token_types=True, columns=("question", "answer"))
    assert [tensor.name for tensor in pairs.tensors] == ["input_ids", "attention_mask", "token_type_ids"]
    inputs = pairs.prepare([("good", "a film"), ("bad", "film")])
    assert inputs.arrays["input_ids"].tolist() == [[2, GOOD, 3, A, FILM, 3], [2, BAD, 3, FILM, 3, 0]]
    assert inputs.arrays["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]]


@pytest.mark.parametrize("settings", [{}, {"token_types": True, "columns": ("a", "b")}])
def test_examples_collate_to_what_prepare_gives(folder, settings):
    text = Text.of(folder, max_length=8, **settings)
    raw = ["a good film", "bad"] if not settings else [("a good", "film"), ("bad", "plot")]
    expected = text.prepare(raw).arrays
    one_by_one = text.collate(np.stack([text.example(one) for one in raw])).arrays
    at_once = text.collate(text.examples(raw)[np.array([0, 1])]).arrays
    for name, array in expected.items():
        np.testing.assert_array_equal(one_by_one[name], array)
        np.testing.assert_array_equal(at_once[name], array)


def test_the_lengths_of_examples_count_tokens(text):
    examples = text.examples(["a good film", "bad"])[np.array([1, 0, 1])]
    assert text.lengths(examples).tolist() == [3, 5, 3]


def test_what_is_too_long_is_cut_and_counted(text):
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 8 tokens"):
        examples = text.examples(["good " * 7, "good " * 6])[np.array([0, 1])]
    np.testing.assert_array_equal(examples[0], examples[1])
    with pytest.warns(UserWarning, match="1 of 1 texts have more than 8 tokens"):
        text.prepare(["good " * 7])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        text.prepare(["good " * 7])


@pytest.mark.parametrize("raw", ["film 😀 film", "фильм 映画 film", "ﬁlm\u0000film", "film\u200dfilm", "\u00a0film"])
def test_any_unicode_passes(text, raw):
    assert text.prepare([raw]).arrays["attention_mask"].all()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("film", "one text, not a batch"),
        (["film", ""], "Text 1 .*empty"),
        (["film", " \t\n"], "Text 1 .*empty"),
        ([b"film"], "Text 0 .*bytes"),
        ([("film", "plot")], "Text 0 .*tuple"),
        (["film", "film \ud800"], "Text 1 cannot be used: The tokenizer cannot read it: it holds half of a surr"),
    ],
)
def test_what_is_no_text_is_refused(text, raw, message):
    with pytest.raises(InputError, match=message):
        text.prepare(raw)


@pytest.mark.parametrize("raw", ["film", ("film",), ("film", ""), ("film", 3)])
def test_a_network_of_pairs_takes_pairs(folder, raw):
    with pytest.raises(InputError):
        Text.of(folder, columns=("a", "b")).prepare([raw])


@pytest.mark.parametrize("content", [b"film", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_pair(folder, content):
    with pytest.raises(InputError, match=r"no JSON|not in UTF-8"):
        Text.of(folder, columns=("a", "b")).raw_from_bytes(content, most_bytes=2**28)


def test_a_text_whose_tokens_would_take_more_than_is_allowed_is_refused(text):
    assert text.raw_from_bytes(b"film", most_bytes=4 * 512) == "film"
    with pytest.raises(InputError, match=r"(?s)5 bytes.*at most 4 bytes.*at most 8 tokens"):
        text.raw_from_bytes(b"films", most_bytes=4 * 512)


def test_long_batches_are_tokenised_part_by_part(text, monkeypatch):
    monkeypatch.setattr("sdcompress.modalities.text._CHARACTERS_AT_ONCE", 8)
    raw, sizes, whole = ["film", "bad", "a good film", "good"], [], Text.encode
    expected = [text.prepare([one]).arrays["input_ids"][0].tolist() for one in raw]
    monkeypatch.setattr(Text, "encode", lambda self, part, first: sizes.append(len(part)) or whole(self, part, first))
    inputs = text.prepare(raw).arrays
    assert sizes == [2, 1, 1]  # 4 + 3 characters; 11, more than 8, alone; 4
    assert [
        row[:length].tolist() for row, length in zip(inputs["input_ids"], inputs["attention_mask"].sum(1), strict=True)
    ] == expected
    with pytest.raises(InputError, match="Text 3 cannot be used"):
        text.prepare([*raw[:3], "\ud800"])
    assert text.examples(raw)[np.arange(4)].shape == (4, 1, 8)
    assert sizes[-3:] == [2, 1, 1]


def test_a_batch_of_none(text):
    assert {name: array.shape for name, array in text.prepare([]).arrays.items()} == {
        "input_ids": (0, 1),
        "attention_mask": (0, 1),
    }


def test_it_comes_back_from_its_parameters_and_finds_its_file(text, folder, tmp_path):
    again = restore(text.record.name, text.parameters)
    assert again == text
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        again.prepare(["film"])
    text.copy_files(tmp_path)
    assert again.located(tmp_path).prepare(["film"]).arrays["input_ids"].tolist() == [[2, FILM, 3]]
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes() + b" ")
    with pytest.raises(InputError, match="SHA-256"):
        again.located(tmp_path).prepare(["film"])


def test_parameters_name_no_file_outside(text):
    entry = {**text.parameters["tokenizer"], "file": "../tokenizer.json"}
    with pytest.raises(ArtifactError):
        restore("text", {**text.parameters, "tokenizer": entry})


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}']
)
def test_a_broken_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match="is no tokenizer"):
        Text.of(tmp_path)


def test_a_missing_tokenizer_is_refused(tmp_path):
    with pytest.raises(DataError, match="no tokenizer at"):
        Text.of(tmp_path)


def test_ids_of_another_vocabulary_are_refused(text, tmp_path):
    larger = Text.of(tokenizer_in(tmp_path, (*WORDS, "unheard")), max_length=8)
    with pytest.raises(DataError, match="token id 14"):
        text.collate(larger.examples(["unheard"])[np.array([0])])


def test_edge_cases_use_the_whole_vocabulary_and_length(text):
    inputs = text.collate(np.stack(list(text.edge_cases().values()))).arrays
    assert inputs["input_ids"].max() == text.vocabulary - 1 == 13
    assert inputs["attention_mask"].sum(axis=1).max() == 8
    assert inputs["attention_mask"].sum(axis=1).min() == 1


def test_the_tokenizers_padding_is_used_and_its_lengths_are_not(tmp_path):
    from tokenizers import Tokenizer

    file = tokenizer_in(tmp_path) / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_padding(pad_id=1, length=20)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(file))
    inputs = Text.of(tmp_path).prepare(["a good film", "bad"])
    assert inputs.arrays["input_ids"].tolist() == [[2, A, GOOD, FILM, 3], [2, BAD, 3, 1, 1]]


def test_texts_of_files(text, tmp_path):
    (tmp_path / "a.txt").write_text("good film\nbad film\n", "utf-8")
    (tmp_path / "a.csv").write_text('id,text\n1,"a, ""good""\nfilm"\n2,bad\n', "utf-8")
    (tmp_path / "a.jsonl").write_text('{"text": "good \\u00e9"}\n', "utf-8")
    assert list(text.raw_examples(tmp_path / "a.txt")) == [
        (f"{tmp_path}/a.txt:1", "good film"),
        (f"{tmp_path}/a.txt:2", "bad film"),
    ]
    assert [raw for _, raw in text.raw_examples(tmp_path / "a.csv")] == ['a, "good"\nfilm', "bad"]
    assert [raw for _, raw in text.raw_examples(tmp_path / "a.jsonl")] == ["good é"]


def test_empty_lines_are_no_rows(text, tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"text": "good film"}\n \t\r\n{"text": "bad film"}\n\n', "utf-8")
    (tmp_path / "a.csv").write_text("id,text\n\n1,good film\n\n2,bad film\n\n", "utf-8")
    assert columns_of(tmp_path / "a.jsonl") == ("text",)
    for name, lines in (("a.jsonl", (2, 4)), ("a.csv", (3, 5))):
        file, texts = tmp_path / name, ("good film", "bad film")
        expected = [(f"{file}:{line}", raw) for line, raw in zip(lines, texts, strict=True)]
        assert list(text.raw_examples(file)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"txt\nfilm\n", "no column 'text'.*Did you mean 'txt'"),
        ("a.csv", b'text\n"film\n', "(?s)cannot be read as a table.*close the quotes"),
        ("a.csv", b"text\nfilm,plot\n", "Line 2 .*2 values"),
        ("a.csv", b"id,text\n1\n", "Line 2 .*no value of 'text'"),
        ("a.tsv", b"\xff\xfe", "cannot be read"),
        ("a.jsonl", b'{"text": "film"}\n{"tex": "film"}\n', "Line 2 .*no value of 'text'"),
        ("a.jsonl", b"film\n", "Line 1 .*no JSON"),
        ("a.jsonl", b"[" * 100_000, "Line 1 .*no JSON"),
        ("a.jsonl", b'\n{"txt": "film"}\n', "no column 'text'.*Did you mean 'txt'"),
        ("a.jsonl", b"[1]\n", "Line 1 .*no object"),
        ("a.pdf", b"", "no table"),
    ],
)
def test_broken_files(text, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(text.raw_examples(tmp_path / name))


def test_columns_of_json_that_is_nested_too_deep(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match="cannot be read"):
        columns_of(tmp_path / "a.jsonl")


@pytest.mark.parametrize("settings", [{}, {"token_types": True, "columns": ("a", "b")}])
def test_the_cards_code_gives_the_same_inputs(folder, settings, monkeypatch):
    text = Text.of(folder, max_length=8, **settings)
    monkeypatch.chdir(folder)
    names = {"np": np}
    exec(text.card_code(), names)
    raw = ("good film", "bad plot " * 9) if settings else "good film " * 9
    given = names["inputs_of"]("\t".join(raw) if settings else raw)
    with pytest.warns(UserWarning, match="were cut"):
        expected = text.prepare([raw]).arrays
    assert given.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(given[name], array)


def test_the_code_of_the_page_gives_the_same_inputs(text, folder, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "text.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(import numpy as np\nfrom tokenizers.*?)```", page, re.DOTALL)
    monkeypatch.chdir(folder)
    names = {}
    exec(code.replace("a fine film", "a good film"), names)
    for name, array in text.prepare(["a good film"]).arrays.items():
        np.testing.assert_array_equal(names["inputs"][name], array)


def test_preparation_imports_neither_torch_nor_transformers(folder):
    code = f"""
import sys
from sdcompress.modalities.text import Text
Text.of({str(folder)!r}).prepare(["good film"])
assert not {{"torch", "transformers", "onnx", "datasets"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
