"""What of a batch of SST-2 is padding, by its order; and what preparing texts costs beside tokenizers alone.

python benchmarks/tasks/texts.py --data FOLDER --tokenizer FOLDER
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from tokenizers import Tokenizer

sys.path.append(str(Path(__file__).resolve().parent.parent / "speed"))
from record import Record

from sdcompress.data import load
from sdcompress.data.lengths import example_lengths
from sdcompress.modalities.text import Text
from sdcompress.schema import recipe
from sdcompress.training.batches import permutation
from sdcompress.training.lengths import like_lengths

BATCHES, REPEATS = (1, 8, 32), 15


def padding(order: np.ndarray, lengths: np.ndarray, batch: int) -> float:
    """Share of the tokens of whole batches that is padding."""
    whole = lengths[order[: len(order) // batch * batch]].reshape(-1, batch)
    return float(1 - whole.sum() / (whole.max(axis=1) * batch).sum())


def alone(tokenizer: Tokenizer, texts: list[str]) -> dict[str, np.ndarray]:
    """What the package tokenizers gives by itself: ids and mask, padded by it."""
    encodings = [tokenizer.encode(texts[0])] if len(texts) == 1 else tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([one.ids for one in encodings], np.int64),
        "attention_mask": np.array([one.attention_mask for one in encodings], np.int64),
    }


def compared(text: Text, tokenizer: Tokenizer, texts: list[str], batch: int) -> dict[str, Any]:
    """Microseconds for each batch, in turns; the ratio is the median over the turns."""
    batches = [texts[start : start + batch] for start in range(0, len(texts) - batch + 1, batch)]
    times = []
    for turn in range(REPEATS):
        pair = {}
        for name in ("alone", "sdcompress") if turn % 2 else ("sdcompress", "alone"):
            start = perf_counter()
            for one in batches:
                text.prepare(one) if name == "sdcompress" else alone(tokenizer, one)
            pair[name] = 1e6 * (perf_counter() - start) / len(batches)
        times.append(pair)
    ratios = [pair["sdcompress"] / pair["alone"] for pair in times]
    return {
        "batch": batch,
        **{f"{name}_us": float(np.median([pair[name] for pair in times])) for name in ("alone", "sdcompress")},
        "ratio": float(np.median(ratios)),
        "ratios_low_high": [min(ratios), max(ratios)],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True)
    given = parser.parse_args()
    record = Record(Path(__file__).resolve().parent, "texts")
    section = recipe.ModalitySection(name="text", tokenizer=given.tokenizer)
    dataset = load(recipe.Data(name="sst2", dir=given.data), seed=0, modality=section)
    lengths = {split: example_lengths(getattr(dataset, split), dataset.modality) for split in ("train", "test")}
    train, test = lengths["train"], lengths["test"]
    plain = permutation(len(train), seed=0, epoch=0)
    by_length = like_lengths(plain, train, 64, seed=0, epoch=0)
    text = dataset.modality
    tokenizer = Tokenizer.from_file(str(text.path(text.tokenizer)))
    tokenizer.enable_truncation(text.max_length)
    tokenizer.enable_padding(pad_id=text.padding)
    texts = dataset.test.originals(np.arange(len(dataset.test)))
    figures = {
        "tokens": {split: float(one.mean()) for split, one in lengths.items()},
        "padding": {
            "training, batches of 64, random": padding(plain, train, 64),
            "training, batches of 64, like lengths": padding(by_length, train, 64),
            "test sentences, batches of 256, as they come": padding(np.arange(len(test)), test, 256),
            "test sentences, batches of 256, sorted": padding(np.argsort(test, kind="stable"), test, 256),
        },
        "preparation": [compared(text, tokenizer, texts, batch) for batch in BATCHES],
    }
    record.write(figures, seed=0, repeats=REPEATS)


if __name__ == "__main__":
    main()
