"""prune: remove channels, attention heads and hidden units of a trained network with exits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sdcompress.artifact.write import staged
from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.errors import UsageError
from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.models.cost import costs
from sdcompress.models.inputs import example_inputs
from sdcompress.models.multiexit import MultiExit
from sdcompress.models.threads import torch_threads
from sdcompress.options import Options
from sdcompress.progress import progress_counter
from sdcompress.pruning.channel_graph import ChannelGraph
from sdcompress.pruning.checking import cut_network, deviation, random_inputs
from sdcompress.pruning.cuts import Cuts, merged
from sdcompress.pruning.importance import add_gradients, unit_scores
from sdcompress.pruning.latency import milliseconds, session
from sdcompress.pruning.save import pruned_files, write_pruned
from sdcompress.pruning.search import smallest_ratio
from sdcompress.pruning.selection import Candidate, removed_units
from sdcompress.schema.pruning import NetworkCost, Pruned, PruningRound
from sdcompress.schema.pruning_target import PruningTarget
from sdcompress.schema.recipe_compression import Prune

__all__ = ["prune_checkpoint"]

Choice: TypeAlias = tuple[tuple[int, tuple[int, ...]], ...]  # units to remove, by the position of their group

_STEPS, _MS_STEPS = 12, 6  # of the bisection; each step of a target in ms is an export
_TOLERANCE = 1e-3  # of outputs in float32; a channel that is removed in one layer alone changes them by far more


def prune_checkpoint(
    model: TrainedModel, out: Path, settings: Prune, options: Options, *, overwrite: bool = False
) -> Checkpoint:
    """Prune an opened checkpoint; see ``verbs.prune`` for arguments and errors."""
    # before the search, because the folder may be taken
    writing = staged(out, overwrite=overwrite, kind="checkpoint", listed=pruned_files)
    with torch_threads(options.threads or 1), writing as folder:
        pruner = _Pruner(model, settings, options)
        choice, ratio = pruner.choose()
        net, cuts, before, after = pruner.result(choice)
        checkpoint, earlier = pruner.checkpoint, pruner.checkpoint.state.pruned
        round_ = PruningRound(
            parent=checkpoint.weights_sha256, settings=settings, ratio=ratio, before=before, after=after
        )
        record = Pruned(
            **dict(merged(cuts, earlier).record) | {"heads_for": pruner.heads_for},
            rounds=(*(earlier.rounds if earlier else ()), round_),
        )
        write_pruned(checkpoint, net, record, folder, pruner.inputs, trust_modules=options.trust_modules)
    return open_checkpoint(out)


class _Pruner:
    """A checkpoint's network, what may be removed from it, and what it costs without it."""

    def __init__(self, model: TrainedModel, settings: Prune, options: Options) -> None:
        self.checkpoint, self._model, self._settings = model.checkpoint(), model, settings
        self._target = PruningTarget.parse(settings.target)
        self.net = _without_gradient_scaling(self.checkpoint).network(trust_modules=options.trust_modules)
        self.inputs = random_inputs(example_inputs(self.checkpoint.modality.tensors))
        self._graph = ChannelGraph(self.net, self.inputs)
        self._count = progress_counter(options.progress, 2 + (_MS_STEPS if self._target.quantity == "ms" else _STEPS))
        self._count(1)
        self._candidates = self._usable(self._scored())
        self._count(1)
        self._whole: Any = None
        self._ms: dict[Choice, tuple[float, float]] = {}

    @property
    def heads_for(self) -> tuple[tuple[int, ...], ...] | None:
        """Return the shapes that the heads were made for, see ``ChannelCuts``."""
        earlier = self.checkpoint.state.pruned
        return earlier.heads_for if earlier else None if len(self.net.heads) else ()

    def choose(self) -> tuple[Choice, float]:
        """Return what to remove, and the ratio at which that is."""
        in_ms, limit = self._target.quantity == "ms", self._target.limit
        if not in_ms:
            limit = self._target.absolute(getattr(self._cost(self.net), self._target.quantity))
        found = smallest_ratio(
            self._choice,
            self._ms_cost if in_ms else self._counted_cost,
            limit,
            steps=_MS_STEPS if in_ms else _STEPS,
            shown=partial(_shown, self._target),
        )
        if not found.choice:
            raise UsageError(
                f"The network already meets the target {self._settings.target}.",
                allowed="a target below the present cost",
                next_step="choose a smaller target, e.g. --target macs=50%",
            )
        return found.choice, found.ratio

    def result(self, choice: Choice) -> tuple[MultiExit, Cuts, NetworkCost, NetworkCost]:
        """Return the pruned network, what was cut, and the cost before and after."""
        cuts = self._graph.cuts(dict(choice))
        if not deviation(self.net, cuts, self.inputs) < _TOLERANCE:
            raise UsageError(
                "The pruned network does not compute what the whole one computes without the removed channels.",
                next_step="choose another target or ranking; please report it",
            )
        net = cut_network(self.net, cuts)
        before, after = self._ms.get(choice, (None, None))
        return (
            net,
            cuts,
            self._cost(self.net).model_copy(update={"ms": before}),
            self._cost(net).model_copy(update={"ms": after}),
        )

    def _scored(self) -> list[Candidate]:
        settings = self._settings
        if settings.importance == "taylor":
            recipe = self._model.recipe
            add_gradients(
                self._graph, self._model.dataset(), settings, batch_size=recipe.train.batch_size, seed=recipe.seed
            )
        scores = unit_scores(self._graph, settings.importance)
        pairs = enumerate(zip(self._graph.groups, scores, strict=True))
        return [
            Candidate(at, score, len(group.units[0]))
            for at, (group, score) in pairs
            if score is not None and len(group) > 1 and (settings.normalised or not group.normalised)
        ]

    def _usable(self, candidates: list[Candidate]) -> list[Candidate]:
        """Return those whose removal changes nothing else; all at once where that holds, else each by itself."""
        if not self._faithful(candidates):
            kept = [candidate for candidate in candidates if self._faithful([candidate])]
            whole = [self._graph.groups[one.at].name for one in candidates if one not in kept]
            warnings.warn(f"These layers cannot be pruned, and stay whole: {', '.join(whole)}", stacklevel=4)
            candidates = kept
        if not candidates:
            raise self._nothing()
        return candidates

    def _faithful(self, candidates: Sequence[Candidate]) -> bool:
        half = {one.at: range(0, len(one.scores), 2) for one in candidates}
        try:
            return deviation(self.net, self._graph.cuts(half), self.inputs) < _TOLERANCE
        except Exception:  # noqa: BLE001 - whatever the library or the network raises, this group stays whole
            return False

    def _nothing(self) -> UsageError:
        normalised = any(group.normalised for group in self._graph.groups) and not self._settings.normalised
        return UsageError(
            f"'{self._model.recipe.model.name}' has no channels that '{self._settings.importance}' can rank and that "
            "can be removed.",
            allowed="networks with convolutions or linear layers inside; for bn_scale with batch norms",
            next_step="set normalised=true, because all of its channels pass a layer norm"
            if normalised
            else "choose importance=magnitude, or another network",
        )

    def _choice(self, ratio: float) -> Choice:
        settings = self._settings
        removed = removed_units(self._candidates, ratio, settings.ranking, settings.round_to)
        return tuple(sorted(removed.items()))

    def _cost(self, net: MultiExit) -> NetworkCost:
        last = costs(net, self.checkpoint.modality.tensors)[-1]
        return NetworkCost(macs=last.macs, parameters=last.parameters)

    def _counted_cost(self, choice: Choice) -> float:
        self._count(1)
        cost: float = getattr(self._cost(self._cut(choice)), self._target.quantity)
        return cost

    def _ms_cost(self, choice: Choice) -> float:
        """Return milliseconds, or the share of those of the whole network where the target is one."""
        self._count(1)
        task, modality = self.checkpoint.task, self.checkpoint.modality
        if self._whole is None:
            self._whole = session(self.net, task, modality)
        before, after = milliseconds(self._whole, session(self._cut(choice), task, modality), self._example())
        self._ms[choice] = before, after
        return after / before if self._target.relative else after

    def _cut(self, choice: Choice) -> MultiExit:
        return cut_network(self.net, self._graph.cuts(dict(choice)))

    def _example(self) -> Any:
        dataset = self._model.dataset()
        return dataset.modality.collate(dataset.train.examples(np.zeros(1, np.int64)))


def _without_gradient_scaling(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose network passes gradients unscaled: tracing follows them, and Taylor measures them."""
    exits = checkpoint.recipe.exits.model_copy(update={"gradient_scaling": "none"})
    recipe = checkpoint.recipe.model_copy(update={"exits": exits})
    return replace(checkpoint, state=checkpoint.state.model_copy(update={"recipe": recipe}))


def _shown(target: PruningTarget, cost: float) -> str:
    if target.quantity == "ms":
        return f"{cost:.0%} of the present milliseconds" if target.relative else f"{cost:.3g} ms"
    return f"{cost:.4g} {target.quantity}"
