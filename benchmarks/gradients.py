"""Measure how large the gradient of each loss term is in the backbone, while a row of a plan trains.

    python benchmarks/gradients.py benchmarks/cpu --data-dir data --rows sfr eed --at 1 20 60

Prints for each row, term and step the norm of the term's gradient in the backbone, as a share of that of the
cross-entropy, and the cosine between the two. A term that is many times the cross-entropy, or points against it,
decides the training instead of the labels. With ``--weights`` a row starts from a finished training of the same
network, so that ``--at 1`` shows what its terms ask of a network that the labels have trained.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from compare import jobs_of
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parent / "speed"))
from record import Record

from sdcompress import recipes
from sdcompress.checkpoint import open_checkpoint
from sdcompress.data import DatasetCache
from sdcompress.schema.recipe import Recipe
from sdcompress.training.hardware import launch
from sdcompress.training.learner import Learner
from sdcompress.training.trainer import Trainer


def watch(learner: Learner, at: list[int], row: str) -> list[dict[str, Any]]:
    """Return what is measured; the learner's forward pass is wrapped."""
    forward, lines = learner._training.forward, list[dict[str, Any]]()  # noqa: SLF001
    backbone = [parameter for parameter in learner.net.backbone.parameters() if parameter.requires_grad]

    def measured(*inputs: Any) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = forward(*inputs)
        if learner.step + 1 in at:
            gradients = {name: _gradient(term, backbone) for name, term in terms.items()}
            for name, gradient in gradients.items():
                own, of_labels = gradient.norm(), gradients["ce"].norm()
                line = {
                    "row": row,
                    "step": learner.step + 1,
                    "term": name,
                    "loss": round(float(terms[name].detach()), 4),
                    "norm": round(float(own), 4),
                    "share_of_ce": round(float(own / of_labels), 3),
                    "cosine_with_ce": round(float(gradient @ gradients["ce"] / (own * of_labels)), 3),
                }
                lines.append(line)
                print(json.dumps(line), flush=True)
        return terms

    learner._training.forward = measured  # type: ignore[method-assign]  # noqa: SLF001
    return lines


def _gradient(term: Tensor, parameters: list[torch.nn.Parameter]) -> Tensor:
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(own) if one is None else one).flatten() for one, own in pairs])


def trained(recipe: Recipe, load: DatasetCache, at: list[int], row: str, weights: Path | None) -> list[dict[str, Any]]:
    dataset = load(recipe.data, seed=recipe.seed, task=recipe.task, modality=recipe.modality)
    trainer = Trainer(recipe, dataset, launch(recipe.train, phases=1), Path())
    learner, batches = trainer.learner, trainer.batches
    if weights:
        learner.net.load_state_dict(open_checkpoint(weights).network().state_dict())
    lines = watch(learner, at, row)
    while learner.step < max(at):
        learner.begin_epoch()
        for parts in batches.epoch(learner.step // batches.steps_per_epoch, 0):
            learner.learn(parts)
            if learner.step >= max(at):
                break
    return lines


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("folder", type=Path, help="holds plan.yaml")
    read.add_argument("--data-dir", type=Path)
    read.add_argument("--setting", help="default: the first")
    read.add_argument("--rows", nargs="+", required=True)
    read.add_argument("--at", nargs="+", type=int, default=[1, 20, 60], help="steps")
    read.add_argument("--weights", type=Path, help="folder of a training of the same network to start from")
    read.add_argument("--name", default="gradients", help="of the record in the folder of the plan")
    given = read.parse_args()
    torch.set_num_threads(1)
    record = Record(given.folder, given.name)
    plan = yaml.safe_load((given.folder / "plan.yaml").read_text(encoding="utf-8"))
    setting, load, lines = given.setting or next(iter(plan["settings"])), DatasetCache(), list[dict[str, Any]]()
    for job in jobs_of(plan, given.data_dir):
        if job.seed == plan["seeds"][0] and job.setting == setting and job.row in given.rows:
            lines += trained(recipes.read(job.recipe), load, given.at, job.row, given.weights)
    record.write({"lines": lines}, setting=setting, seed=plan["seeds"][0], threads=1)


if __name__ == "__main__":
    main()
