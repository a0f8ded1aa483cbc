"""Split SST-2 anew: enough validation sentences for a certificate, and no training phrase that is part of one.

    python benchmarks/tasks/split_sentences.py DATA OUT [--held-out 3000]

DATA holds train.tsv, dev.tsv and test.tsv. The training file of SST-2 has the phrases of 6,885 sentences, and these
sentences. OUT gets the dev sentences with ``--held-out`` of them as dev.tsv, the phrases of the other
sentences as train.tsv, and the same test.tsv.
"""

from __future__ import annotations

import argparse
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np


def parts_of(sentences: list[str], phrases: list[str]) -> set[str]:
    """Return the phrases that stand, word for word, in one of the sentences."""
    padded = [f" {sentence} " for sentence in sentences]
    places = defaultdict(set)
    for place, sentence in enumerate(sentences):
        for word in sentence.split():
            places[word].add(place)
    return {
        phrase
        for phrase in phrases
        if any(f" {phrase} " in padded[place] for place in min((places[word] for word in phrase.split()), key=len))
    }


def whole_sentences(phrases: list[str]) -> list[str]:
    """Return the phrases that stand in no longer one."""
    found: list[str] = []
    places = defaultdict(list)
    for phrase in sorted(set(phrases), key=lambda each: (-len(each), each)):
        words = phrase.split()
        if not any(f" {phrase} " in f" {found[place]} " for place in min((places[word] for word in words), key=len)):
            for word in set(words):
                places[word].append(len(found))
            found.append(phrase)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", type=int, default=3000)
    chosen = parser.parse_args()
    header, *lines = (chosen.data / "train.tsv").read_text(encoding="utf-8").splitlines()
    rows = [(text.strip(), label) for text, label in (line.split("\t") for line in lines)]
    phrases = [text for text, _ in rows]
    sentences = whole_sentences(phrases)
    held_out = [sentences[i] for i in np.random.default_rng(0).permutation(len(sentences))[: chosen.held_out]]
    removed, labels = parts_of(held_out, phrases), dict(rows)
    train = [f"{text}\t{label}" for text, label in rows if text not in removed]
    dev = (chosen.data / "dev.tsv").read_text(encoding="utf-8").splitlines()
    dev += [f"{text}\t{labels[text]}" for text in held_out]
    chosen.out.mkdir(parents=True)
    (chosen.out / "train.tsv").write_text("\n".join([header, *train]) + "\n", encoding="utf-8")
    (chosen.out / "dev.tsv").write_text("\n".join(dev) + "\n", encoding="utf-8")
    shutil.copy(chosen.data / "test.tsv", chosen.out)
    print({"sentences": len(sentences), "train": len(train), "dev": len(dev) - 1})


if __name__ == "__main__":
    main()
