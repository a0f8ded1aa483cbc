"""Texts go the whole way with a tiny encoder; their tokenizer goes with them and is checked as everything else."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from texts import WORDS, tokenizer_in

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.checkpoint import open_checkpoint
from sdcompress.data.lengths import example_lengths
from sdcompress.data.samples import Subset
from sdcompress.errors import ArtifactError, CheckpointError, DataError, RecipeError, UsageError
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.options import Options
from sdcompress.quantizing.quantize import quantize
from sdcompress.training.preflight import check_with_data

pytest.importorskip("transformers")

COUNT = 120


def written(folder: Path) -> dict:
    """A data set in which 'good' and 'fine' are positive, and the recipe of a tiny encoder."""
    rng = np.random.default_rng(0)
    data = folder / "data"
    data.mkdir()
    for split, count in (("train", COUNT), ("validation", 60), ("test", 40)):
        with (data / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["text", "label"])
            for row in range(count):
                mood = ("good", "fine") if row % 2 else ("bad", "dull")
                words = [*rng.choice(("a", "the", "film", "plot", "and"), rng.integers(1, 9)), rng.choice(mood)]
                table.writerow([" ".join(rng.permutation(words)), "positive" if row % 2 else "negative"])
    sizes = {
        "vocab_size": len(WORDS) + 4,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 16,
    }
    return {
        "name": "tiny",
        "data": {"name": "texts", "dir": str(data)},
        "modality": {"name": "text", "tokenizer": str(tokenizer_in(folder / "encoder")), "max_length": 16},
        "model": {"name": "hf:bert", "options": {"config": sizes}},
        "exits": {"count": 1, "head": "tanh_mlp"},
        "method": "self_distillation",
        "train": {"epochs": 3, "batch_size": 8, "optimizer": {"name": "adamw", "lr": 0.01}},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the data, the encoder's tokenizer, the training 'run', the artifact 'cascade' and, calibrated, 'early'."""
    folder = tmp_path_factory.mktemp("texts")
    sdcompress.train(written(folder), folder / "run")
    sdcompress.export(folder / "run", folder / "cascade", layout="cascade")
    sdcompress.calibrate(folder / "cascade", folder / "early", {"max_drop": 0.1})
    shutil.move(folder / "encoder", folder / "elsewhere")  # nothing needs it where it was
    return folder


def test_it_learns_and_the_artifact_scores_as_the_checkpoint(folder: Path) -> None:
    trained, exported = (sdcompress.evaluate(folder / name) for name in ("run", "cascade"))
    assert trained.exits[-1].metric > 0.9
    assert [exit_.metric for exit_ in trained.exits] == [exit_.metric for exit_ in exported.exits]
    assert trained.losses == exported.losses


def test_padding_moves_no_output_where_ranges_are_of_texts_of_one_length(folder: Path, tmp_path: Path) -> None:
    """Long documents are all cut to one length, and the mask of attention hides nothing in them."""
    model = open_trained_model(folder / "cascade")
    dataset = model.dataset()
    lengths = example_lengths(dataset.train, model.opened.modality)
    rows = np.resize(np.flatnonzero(lengths == np.bincount(lengths).argmax()), 64)
    training, validation = Subset(dataset.train, rows), dataset.split("validation")
    quantize(model.opened, tmp_path / "out", precision="uint8", training=training, validation=validation, max_drop=0.5)
    engine = sdcompress.open(tmp_path / "out", threads=1)
    short, long = "a bad plot", "the film and the plot and a film fine"
    together, alone = (engine.exits(engine.preprocess(texts)) for texts in ([short, long], [short]))
    np.testing.assert_allclose(together[:, :1], alone, atol=1e-5)


def test_evaluation_in_the_order_of_lengths_keeps_the_order_of_the_samples(folder: Path) -> None:
    engine = sdcompress.open(folder / "cascade")
    with (folder / "data" / "test.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    one_by_one = np.concatenate([engine.exits(engine.preprocess([text])) for text in texts], axis=1)
    from sdcompress.data import load
    from sdcompress.evaluation.exit_outcomes import exit_outputs

    recipe = open_checkpoint(folder / "run").recipe
    modality = engine.modality.with_own_files(recipe.modality)
    dataset = load(recipe.data, seed=recipe.seed, modality=modality)
    np.testing.assert_allclose(exit_outputs(engine, dataset.test, batch=16), one_by_one, atol=1e-5)


@pytest.mark.parametrize("name", ["cascade", "early"])
def test_the_tokenizer_travels_and_is_checked(folder: Path, name: str, tmp_path: Path) -> None:
    copy = shutil.copytree(folder / name, tmp_path / name)
    tokenizer = copy / "tokenizer.json"
    assert tokenizer.read_bytes() == (folder / "elsewhere" / "tokenizer.json").read_bytes()
    tokenizer.write_bytes(tokenizer.read_bytes().replace(b"good", b"goob"))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json.*SHA-256"):
        open_artifact(copy)
    tokenizer.unlink()
    with pytest.raises(ArtifactError, match=r"lacks tokenizer\.json"):
        open_artifact(copy)


def test_the_tokenizer_of_a_checkpoint_is_checked(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    tokenizer = max(run.glob("steps/*/tokenizer.json"))
    tokenizer.write_bytes(tokenizer.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        open_checkpoint(run)


@pytest.mark.parametrize("name", ["run", "early"])
def test_predictions_of_texts_in_files(folder: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good film\n\nbad plot 😀\n", "utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps({"id": 1, "text": "a fine film"}), "utf-8")
    with pytest.warns(UserWarning, match="1 of 4 examples have no prediction"):
        predictions = sdcompress.predict(folder / name, [tmp_path / "a.txt", tmp_path / "b.jsonl"])
    assert [Path(one.file).name for one in predictions] == ["a.txt:1", "a.txt:2", "a.txt:3", "b.jsonl:1"]
    assert [one.stated[0].name if one.stated else one.error for one in predictions] == [
        "positive",
        "The text is empty.",
        "negative",
        "positive",
    ]


def test_evaluation_of_a_table(folder: Path, tmp_path: Path) -> None:
    table = folder / "data" / "test.csv"
    given = sdcompress.evaluate(folder / "early", samples=table)
    assert (given.split, given.losses) == ("external", sdcompress.evaluate(folder / "early").losses)
    (tmp_path / "a.csv").write_text("text,label\ngood,neutral\n", "utf-8")
    with pytest.raises(DataError, match=r"a\.csv:2 has the label 'neutral'"):
        sdcompress.evaluate(folder / "early", samples=tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("text\ngood\n", "utf-8")
    with pytest.raises(DataError, match="no column 'label'"):
        sdcompress.evaluate(folder / "early", samples=tmp_path / "a.csv")


def test_the_cards_program_decides_the_same_with_onnxruntime_and_tokenizers_alone(folder: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (folder / "early" / "README.md").read_text("utf-8"), re.DOTALL)[-1]
    assert "sdcompress" not in code
    text = "a fine film 😀"
    run = subprocess.run(
        [sys.executable, "-c", code, text], cwd=folder / "early", capture_output=True, text=True, check=True
    )
    engine = sdcompress.open(folder / "early")
    prediction = engine(engine.preprocess([text]))
    assert run.stdout.strip() == f"{text} ({prediction.decision[0]}, {prediction.exit_index[0]})"


def test_an_engine_needs_neither_torch_nor_transformers(folder: Path) -> None:
    code = f"""
import sys, sdcompress
engine = sdcompress.open({str(folder / "early")!r})
engine(engine.preprocess(["good film", "a plot"]))
assert not {{"torch", "transformers", "onnx", "datasets"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unlabelled_traffic_calibrates(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = {" ".join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(60)}
    (tmp_path / "traffic").mkdir()
    (tmp_path / "traffic" / "a.txt").write_text("\n".join(sorted(lines)), "utf-8")
    settings = {"max_drop": 0.2, "unlabelled": True, "in_expectation": True}
    manifest = sdcompress.calibrate(folder / "cascade", tmp_path / "out", settings, samples=tmp_path / "traffic")
    assert 40 <= manifest.policy.samples <= len(lines)


def test_bench_times_tokenising(folder: Path) -> None:
    settings = {"duration_s": 0.02, "rounds": 5, "warmup_ms": 1, "batch_sizes": [4]}
    report = sdcompress.bench([folder / "cascade"], settings, Options(threads=1))
    assert report.preparation == "from texts, tokenised and padded to the longest"


def test_texts_of_the_step_before_may_be_longer_or_shorter(tmp_path: Path) -> None:
    recipe = {**written(tmp_path), "method": "dlb", "train": {"epochs": 1, "batch_size": 8}}
    assert sdcompress.train(recipe, tmp_path / "run").state.finished


def test_a_stopped_training_ends_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    recipe = {**written(tmp_path), "train": {"epochs": 2, "batch_size": 8}}
    whole = sdcompress.train(recipe, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", stopped)
    steps = sorted((stopped / "steps").iterdir())
    assert len(steps) == 2
    shutil.rmtree(steps[-1])
    assert sdcompress.train(recipe, stopped).weights_sha256 == whole.weights_sha256


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [
        ({"vocab_size": len(WORDS)}, "the last token of the vocabulary"),
        ({"max_position_embeddings": 20}, "the longest text"),
    ],
)
def test_a_network_of_another_vocabulary_or_fewer_positions_is_refused(tmp_path: Path, sizes: dict, kind: str) -> None:
    from sdcompress import recipes
    from sdcompress.data import load

    fields = written(tmp_path)
    fields["modality"]["max_length"] = 32
    fields["model"]["options"]["config"].update({"max_position_embeddings": 32, **sizes})
    recipe = recipes.read(fields)
    dataset = load(recipe.data, seed=0, modality=recipe.modality)
    with pytest.raises(RecipeError, match=f"cannot take all inputs .*{kind}"):
        check_with_data(recipe, dataset)


def test_a_table_of_images_is_no_table(folder: Path, tiny_artifact) -> None:
    with pytest.raises(UsageError, match="says no label"):
        sdcompress.evaluate(tiny_artifact(), samples=folder / "data" / "test.csv")
