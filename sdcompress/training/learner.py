"""What changes in a training: network, optimiser, averages, teacher and the method's state; and one step of it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn

from sdcompress import methods
from sdcompress.checkpoint import Checkpoint, open_checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.methods._base import Context
from sdcompress.models.build import build as build_network
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema.recipe import Recipe
from sdcompress.training import optimizer as optimizers
from sdcompress.training.augment import Augment, mixup
from sdcompress.training.balance import class_weights
from sdcompress.training.batches import Batches, RawBatch
from sdcompress.training.ema import Ema
from sdcompress.training.hardware import find_unused, no_gradient_missing
from sdcompress.training.phases import Span, span_at, spans
from sdcompress.training.probe import describe_unused, reached_parameters, trained_parameters
from sdcompress.training.randomness import step_seed
from sdcompress.training.save import Resumable, restore
from sdcompress.training.sharding import load, piece, shard_alike
from sdcompress.training.step import Clock, Inputs, TrainingStep
from sdcompress.training.validate_recipe import check_network, warn_of_places
from sdcompress.training.warm_start import load_matching

__all__ = ["Learner", "add"]

# in the place of a process's number, which is lower: seeds of what is no process's own
_FOR_ALL, _GENERATION = 2**30, 2**30 + 1


class Learner:
    """A network that learns by a recipe, step by step.

    Args:
        recipe: how.
        dataset: from what.
        batches: its steps.
        fabric: where, launched.
        start: the checkpoint to go on from.

    Attributes:
        net: the network.
        step: steps done.
        steps: all of them.
        evaluated: what is evaluated and exported: the average where EMA is on, else the network.

    Raises:
        RecipeError: if the network cannot give what the method needs, or cannot be trained on batches of this size.
    """

    def __init__(
        self, recipe: Recipe, dataset: Dataset, batches: Batches, fabric: Fabric, start: Checkpoint | None = None
    ) -> None:
        spec, self._method = recipe.train, methods.build(recipe.method)
        self._recipe, self._dataset, self._fabric, self._per_epoch = recipe, dataset, fabric, batches.steps_per_epoch
        self._needs, self._spans = self._method.needs, spans(self._method.phases, spec.epochs)
        self._layout = torch.channels_last if spec.channels_last else torch.contiguous_format
        self.net = self._build(0)
        if recipe.model.start is not None and start is None:
            load_matching(open_checkpoint(recipe.model.start), self.net, recipe)
        check_network(self._needs, self.net, recipe)
        if start is None and fabric.is_global_zero:
            warn_of_places(self.net, recipe, dataset.image)
        state = self._method.state(
            Context(len(dataset.train), batches.size, len(dataset.outputs), self.net.feature_sizes, self.net.map_shapes)
        )
        self.net.to(fabric.device)  # before it is copied
        self._ema = Ema(self.net, spec.ema) if spec.ema else None
        self._average = Ema(self.net, self._needs.average) if self._needs.average else None
        self._teacher: nn.Module | None = self._average.net if self._average else None
        if any(span.phase.reborn for span in self._spans):
            self._teacher = copy.deepcopy(self.net).eval().requires_grad_(requires_grad=False)
        self._augment = Augment(spec.augment, dataset.preprocess, rank=fabric.global_rank, world=fabric.world_size)
        weights = class_weights(spec.class_weights, dataset)
        step = TrainingStep(
            self.net,
            self._method,
            state,
            spec.label_smoothing,
            self._teacher,
            class_weights=None if weights is None else torch.from_numpy(weights).to(fabric.device),
        ).to(fabric.device)
        all_learn = not self._look_for_unused(step, batches, say=start is None) and len(self._spans) == 1
        if spec.compile:
            step.net = cast("nn.Module", torch.compile(self.net))
        self._forward = fabric.setup_module(step)
        average = self._ema.net if self._ema else None
        for copied in filter(None, (average, self._teacher)):
            shard_alike(copied, self.net)
        # Fabric clips no gradients for a fused optimiser that a loss scaler stands before
        fused = spec.precision != "16-mixed" and fabric.device.type in ("cpu", "cuda")
        self.optimizer = optimizers.build(spec.optimizer, step.parameters(), fused=fused)
        self._stepper = fabric.setup_optimizers(self.optimizer)
        placed = {name: piece(values) for name, values in self.net.state_dict().items()}
        self._infinite = {name: found for name, values in placed.items() if (found := torch.isinf(values)).any()}
        self._now = Resumable(self.net, state, self.optimizer, average, self._teacher, {})
        if start is not None:
            restore(start, self._now, all_learn=all_learn)
        self.step, self.steps = start.state.step if start else 0, spec.epochs * self._per_epoch
        self._statistics = [values for values in self.net.buffers() if values.is_floating_point()]
        if self._now.scaler:
            fabric.strategy.precision.load_state_dict(self._now.scaler)

    @property
    def evaluated(self) -> MultiExit:
        """What is evaluated and exported."""
        return self._ema.net if self._ema else self.net

    def now(self) -> Resumable:
        """Everything that a checkpoint keeps."""
        self._now.scaler = dict(self._fabric.strategy.precision.state_dict())
        return self._now

    def watched(self) -> Iterator[Tensor]:
        """What must stay finite: weights and statistics, but for entries that were infinite from the start (masks)."""
        for name, tensor in self.net.state_dict().items():
            values = piece(tensor)
            yield values[~self._infinite[name]] if name in self._infinite else values

    def begin_epoch(self) -> None:
        """Enter the phase that the next step belongs to; a phase begins once, however often the run is stopped."""
        span = self._span()
        if span.phase.reborn and self.step == span.first * self._per_epoch:
            assert self._teacher is not None
            load(self._teacher, self.evaluated.state_dict())
            load(self.net, self._build(span.number).state_dict())
            self.optimizer.state.clear()
            if self._ema:
                load(self._ema.net, self.net.state_dict())
        self.net.freeze_backbone(frozen=span.phase.frozen)

    def learn(self, parts: Sequence[RawBatch]) -> dict[str, Tensor]:
        """Make one step on a batch that may come in several parts.

        Returns:
            The weighted terms of the loss, scalars, mean over the parts.
        """
        recipe, seed = self._recipe, step_seed(self._recipe.seed, self.step, self._fabric.global_rank)
        torch.manual_seed(seed)  # dropout and the like
        chance = torch.Generator().manual_seed(step_seed(recipe.seed, self.step, _FOR_ALL))
        self._set_rate()
        clock = Clock(self.step, self.step // self._per_epoch, self.step / self.steps, self._span().number)
        self._stepper.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, raw in enumerate(parts, start=1):
            own, second = self._inputs(raw, chance)
            with self._fabric.no_backward_sync(self._forward, enabled=number < len(parts)):
                with no_gradient_missing():
                    terms: dict[str, Tensor] = self._forward(own, second, clock)
                loss = torch.stack([*terms.values()]).sum()
                self._fabric.backward(loss / len(parts) if len(parts) > 1 else loss)
            add(sums, {name: term.detach() / len(parts) for name, term in terms.items()})
        if recipe.train.clip_grad:
            self._fabric.clip_gradients(
                self._forward, self._stepper, max_norm=recipe.train.clip_grad, error_if_nonfinite=False
            )
        self._stepper.step()
        self._share_statistics()
        for average in filter(None, (self._ema, self._average)):
            average.update(self.step - self._born())
        self.step += 1
        return sums

    def _build(self, generation: int) -> MultiExit:
        """The network as it is before it has learnt anything; later generations have nobody's weights."""
        seed, model = self._recipe.seed, self._recipe.model
        torch.manual_seed(step_seed(seed, generation, _GENERATION) if generation else seed)
        net = build_network(
            model.untrained if generation else model,
            self._recipe.exits,
            classes=len(self._dataset.outputs),
            image=self._dataset.image,
            heads=self._needs.exits,
            maps=self._needs.maps,
        )
        net.to(memory_format=self._layout)
        return net

    def _look_for_unused(self, step: TrainingStep, batches: Batches, *, say: bool) -> set[str]:
        """Run the first batch once in every phase; name the parameters without a gradient, and tell DDP of them.

        Returns:
            Their names.

        DDP fails where a gradient that it waits for does not come; one process trains without it.
        """
        chance = torch.Generator().manual_seed(step_seed(self._recipe.seed, 0, _FOR_ALL))
        torch.manual_seed(step_seed(self._recipe.seed, 0, self._fabric.global_rank))
        own, second = self._inputs(batches.example(), chance)
        expected, trained, reached = trained_parameters(step), set[str](), set[str]()
        for span in self._spans:
            self.net.freeze_backbone(frozen=span.phase.frozen)
            first = span.first * self._per_epoch
            clock = Clock(first, span.first, span.first / self._recipe.train.epochs, span.number)
            with self._fabric.autocast():
                reached |= reached_parameters(step, own, second, clock)
            trained |= trained_parameters(step)
        self.net.freeze_backbone(frozen=False)
        if expected - reached:
            find_unused(self._fabric)
        if (unused := trained - reached) and say and self._fabric.is_global_zero:
            warnings.warn(describe_unused(unused), stacklevel=2)
        return unused

    def _span(self) -> Span:
        return span_at(self._spans, self.step // self._per_epoch)

    def _born(self) -> int:
        """The step with which this generation began."""
        done = self._spans[: self._span().number + 1]
        return max((span.first for span in done if span.phase.reborn), default=0) * self._per_epoch

    def _share_statistics(self) -> None:
        """Let all processes have the running statistics of the first, so that averages and teachers are the same."""
        if self._fabric.world_size == 1 or not self._statistics:
            return
        whole = torch.cat([values.flatten() for values in self._statistics])
        distributed.broadcast(whole, 0)
        start = 0
        for values in self._statistics:
            values.copy_(whole[start : start + values.numel()].view_as(values))
            start += values.numel()

    def _set_rate(self) -> None:
        span = self._span()
        lr = optimizers.rate(
            self._recipe.train.schedule,
            lr=self._recipe.train.optimizer.lr,
            step=self.step - span.first * self._per_epoch,
            steps_per_epoch=self._per_epoch,
            epochs=span.epochs,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _inputs(self, raw: RawBatch, chance: torch.Generator) -> tuple[Inputs, Inputs | None]:
        """The step's images, and the method's further view of it."""
        raw = self._sent(raw)
        own, view = self._augmented(raw, chance), self._needs.view
        if view is None:
            return own, None
        second = self._augmented(raw.second or raw, chance) if view.augmented or raw.second else own
        if view.mixed:
            images, mix = mixup(second.images, second.labels, view.mixed, chance)
            second = second._replace(images=images, mix=mix)
        return own, second

    def _augmented(self, raw: RawBatch, chance: torch.Generator) -> Inputs:
        images, mix = self._augment(raw.images.permute(0, 3, 1, 2), raw.labels, chance)
        return Inputs(images.contiguous(memory_format=self._layout), raw.labels, raw.index, mix)

    def _sent(self, raw: RawBatch) -> RawBatch:
        device = self._fabric.device
        images, labels, index = (part.to(device, non_blocking=True) for part in (raw.images, raw.labels, raw.index))
        return RawBatch(index, images, labels, self._sent(raw.second) if raw.second else None)


def add(sums: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    """Add terms to sums, name by name."""
    for name, term in terms.items():
        sums[name] = sums[name] + term if name in sums else term
