"""The state of a training (network, optimiser, averages, teacher, the method's state) and one step of it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn

from sdcompress import methods
from sdcompress.checkpoint import Checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.methods._base import Context
from sdcompress.models.build import build as build_network
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.training import Teacher
from sdcompress.training import optimizer as optimizers
from sdcompress.training.balance import class_weights
from sdcompress.training.batches import Batches, MicroBatch
from sdcompress.training.check_recipe import (
    check_augmentation,
    check_edge_cases,
    check_logits,
    check_network,
    warn_of_places,
)
from sdcompress.training.feature_cache import FeatureCache
from sdcompress.training.frozen import CachedInputs, Source, compute_features
from sdcompress.training.hardware import find_unused, no_gradient_missing
from sdcompress.training.optimizer import Ema
from sdcompress.training.prepare_batch import BatchPreparer
from sdcompress.training.save import Resumable, restore
from sdcompress.training.schedule import Timeline
from sdcompress.training.sharding import load, local_value, shard_alike
from sdcompress.training.step import TrainingStep
from sdcompress.training.strided_depthwise import keep_in_float32
from sdcompress.training.trained_teacher import load_teacher
from sdcompress.training.unused_parameters import describe_unused, reached_parameters, trained_parameters
from sdcompress.training.warm_start import load_start, start_cuts

__all__ = ["Learner", "add"]

# in the place of a process's number, which is lower: seeds that belong to no process
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
        optimizer: torch's own.
        step: steps done.
        steps: all of them.
        rate: of the last step, before the factors of heads and blocks.
        loaded: the weights that it began with, where the recipe names some.
        teacher: the record of the trained network that teaches, where the recipe names one.
        pruned: how the network differs from that of the recipe, where it began with a pruned checkpoint.
        val_features: what heads see of the validation samples, where a frozen backbone ran once.

    Raises:
        RecipeError: if the network cannot give what the method needs, or cannot be trained on batches of this size.
    """

    def __init__(
        self, recipe: Recipe, dataset: Dataset, batches: Batches, fabric: Fabric, start: Checkpoint | None = None
    ) -> None:
        self._recipe, self._dataset, self._fabric = recipe, dataset, fabric
        self._method = methods.build(recipe.method)
        self._timeline = Timeline(recipe.train, self._method.phases, batches.steps_per_epoch)
        self._layout = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
        rank, world = fabric.global_rank, fabric.world_size
        check_augmentation(recipe, self._method.needs, dataset)
        augment = dataset.modality.augment(recipe.train.augment, rank=rank, world=world)
        self._prepare: BatchPreparer | CachedInputs = BatchPreparer(
            augment,
            self._method.needs.view,
            fabric.device,
            self._layout,
            target_fill=dataset.task.target_fill,
            modality=dataset.modality,
        )
        self.loaded = start.state.loaded if start else None
        exits = self._method.needs.exits
        self.pruned = start.state.pruned if start else start_cuts(recipe, exits=exits)
        self.net = self._first_network(resumed=start is not None)
        sizes = self.net.feature_sizes, self.net.map_shapes
        state = self._method.state(Context(len(dataset.train), batches.size, dataset.task, *sizes))
        self.net.to(fabric.device)  # before it is copied
        self._eval_ema, self._teacher_ema, self._teacher = self._copies()
        self.teacher: Teacher | None
        trained, self.teacher = load_teacher(recipe, dataset)
        self._training, self._batches = self._training_step(state, trained), batches
        self.val_features: FeatureCache | None = None
        unused = self._find_unused_parameters(warn=start is None)
        self._set_up()
        placed = {name: local_value(values) for name, values in self.net.state_dict().items()}
        infinite = {name: torch.isinf(values) for name, values in placed.items()}
        self._infinite = {name: entries for name, entries in infinite.items() if entries.any()}
        self._statistics = [values for values in self.net.buffers() if values.is_floating_point()]
        average = self._eval_ema.net if self._eval_ema else None
        self._resumable = Resumable(self.net, state, self.optimizer, average, self._teacher, {})
        self.step, self.steps = start.state.step if start else 0, self._timeline.steps
        self.rate = self._timeline.rate(self.step)
        if start is not None:
            restore(start, self._resumable, all_learn=not unused and len(self._timeline.spans) == 1)
            if self._resumable.scaler:
                fabric.strategy.precision.load_state_dict(self._resumable.scaler)

    def _first_network(self, *, resumed: bool) -> MultiExit:
        """The network before its first step, with those weights that the recipe names unless it is resumed."""
        recipe = self._recipe
        net = self._build(0)
        if recipe.model.weights is not None and not resumed:
            self.loaded = load_start(net, recipe, self._dataset.outputs, self._dataset.fingerprint)
        if recipe.train.backbone == "frozen":
            net.freeze_all_but_heads()
        check_network(self._method.needs, net, recipe)
        check_edge_cases(net, self._dataset.modality, recipe)
        if not resumed:
            check_logits(net, recipe, self._dataset.modality.tensors)
        if not resumed and self._fabric.is_global_zero:
            warn_of_places(net, recipe, self._dataset.modality.tensors)
        return net

    def cache_features(self, note: Callable[[str], None] | None = None) -> None:
        """Run a frozen backbone once over the data, if the recipe and the data allow that; steps then start from it.

        Args:
            note: called with a sentence before the backbone runs.
        """
        if isinstance(self._prepare, CachedInputs):
            return
        recipe, dataset, needs = self._recipe, self._dataset, self._method.needs
        source = Source(recipe, dataset, self.net, needs, self._batches, self._prepare, self._fabric)
        features = compute_features(source, note)
        if features is None:
            return
        self._prepare = CachedInputs(needs, self._fabric.device)
        self._batches.fetch = features["train"].fetch(dataset.train)
        self._training.from_features, self.val_features = True, features.get("val")

    def _copies(self) -> tuple[Ema[MultiExit] | None, Ema[MultiExit] | None, nn.Module | None]:
        """Return the average that is evaluated, the average that teaches, and the teacher, as far as there are any."""
        decay, needs = self._recipe.train.ema_decay, self._method.needs
        evaluated = Ema(self.net, decay) if decay else None
        teaching = Ema(self.net, needs.average) if needs.average else None
        if any(span.phase.restart for span in self._timeline.spans):
            return evaluated, teaching, copy.deepcopy(self.net).eval().requires_grad_(requires_grad=False)
        return evaluated, teaching, teaching.net if teaching else None

    def _training_step(self, state: nn.Module, trained: MultiExit | None) -> TrainingStep:
        spec, device = self._recipe.train, self._fabric.device
        if trained is not None:
            trained.to(device).to(memory_format=self._layout)
        weights = class_weights(spec.class_weights, self._dataset)
        return TrainingStep(
            self.net,
            self._method,
            state,
            task=self._dataset.task,
            smoothing=spec.label_smoothing,
            teacher=self._teacher if trained is None else trained,
            class_weights=None if weights is None else torch.from_numpy(weights).to(device),
        ).to(device)

    def _set_up(self) -> None:
        """Compile, share out and wrap what is trained, and make its optimiser."""
        spec, fabric, step = self._recipe.train, self._fabric, self._training
        if spec.compile:
            step.net = cast("nn.Module", torch.compile(self.net))
        self._forward = fabric.setup_module(step)
        for copied in filter(None, (self._eval_ema.net if self._eval_ema else None, self._teacher)):
            shard_alike(copied, self.net)
        # Fabric clips no gradients for a fused optimiser that a loss scaler stands before
        fused = spec.precision != "16-mixed" and fabric.device.type in ("cpu", "cuda")
        factors = optimizers.rate_factors(spec.optimizer, self.net, step.state)
        self.optimizer = optimizers.build(spec.optimizer, step.parameters(), factors, fused=fused)
        self._stepper = fabric.setup_optimizers(self.optimizer)

    @property
    def eval_model(self) -> MultiExit:
        """Return the network to evaluate and export: the average where ``train.ema_decay`` is on, else the network."""
        return self._eval_ema.net if self._eval_ema else self.net

    def resumable_state(self) -> Resumable:
        """Return everything that a checkpoint keeps."""
        self._resumable.scaler = dict(self._fabric.strategy.precision.state_dict())
        return self._resumable

    def tensors_checked_finite(self) -> Iterator[Tensor]:
        """Yield what must stay finite: weights and statistics, without entries infinite from the start (masks)."""
        for name, tensor in self.net.state_dict().items():
            values = local_value(tensor)
            yield values[~self._infinite[name]] if name in self._infinite else values

    def begin_epoch(self) -> None:
        """Enter the phase that the next step belongs to; a phase begins once, however often the run is stopped."""
        span = self._timeline.span(self.step)
        if span.phase.restart and self.step == self._timeline.first_step(span):
            assert self._teacher is not None
            load(self._teacher, self.eval_model.state_dict())
            load(self.net, self._build(span.number).state_dict())
            self.optimizer.state.clear()
            if self._eval_ema:
                load(self._eval_ema.net, self.net.state_dict())
        self.net.freeze_backbone(frozen=span.phase.freeze_backbone)
        if self._teacher_ema:
            self._teacher_ema.use_batch_statistics()

    def learn(self, parts: Sequence[MicroBatch]) -> dict[str, Tensor]:
        """Make one step on a batch that may come in several parts.

        Returns:
            The weighted terms of the loss, scalars, mean over the parts.
        """
        recipe, seed = self._recipe, step_seed(self._recipe.seed, self.step, self._fabric.global_rank)
        torch.manual_seed(seed)  # dropout and the like
        rng = torch.Generator().manual_seed(step_seed(recipe.seed, self.step, _FOR_ALL))
        self.rate = self._timeline.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["lr_scale"]
        clock = self._timeline.clock(self.step)
        self._stepper.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts, start=1):
            primary, second = self._prepare(part, rng)
            with self._fabric.no_backward_sync(self._forward, enabled=number < len(parts)):
                with no_gradient_missing():
                    terms: dict[str, Tensor] = self._forward(primary, second, clock)
                loss = torch.stack([*terms.values()]).sum()
                self._fabric.backward(loss / len(parts) if len(parts) > 1 else loss)
            add(sums, {name: term.detach() / len(parts) for name, term in terms.items()})
        if recipe.train.clip_grad:
            self._fabric.clip_gradients(
                self._forward, self._stepper, max_norm=recipe.train.clip_grad, error_if_nonfinite=False
            )
        self._stepper.step()
        self._share_statistics()
        for average in filter(None, (self._eval_ema, self._teacher_ema)):
            average.update(self.step - self._timeline.generation_start(self.step))
        self.step += 1
        return sums

    def _build(self, generation: int) -> MultiExit:
        """Return the untrained network; later generations take no published weights."""
        seed, model = self._recipe.seed, self._recipe.model
        torch.manual_seed(step_seed(seed, generation, _GENERATION) if generation else seed)
        net = build_network(
            model.untrained if generation else model,
            self._recipe.exits,
            outputs=self._dataset.task.output_shape,
            inputs=self._dataset.modality.tensors,
            heads=self._method.needs.exits,
            maps=self._method.needs.maps,
            cuts=self.pruned,
        )
        if self.pruned is not None and self.pruned.heads_for == () and net.heads:
            self.pruned = self.pruned.with_heads_for(net.map_shapes)
        net.to(memory_format=self._layout)
        if self._recipe.train.precision == "bf16-mixed" and self._fabric.device.type == "cpu":
            keep_in_float32(net)
        return net

    def _find_unused_parameters(self, *, warn: bool) -> set[str]:
        """Run the first batch once in every phase; name the parameters without a gradient, and tell DDP of them.

        Returns:
            Their names.

        DDP fails where a gradient that it waits for does not come; one process trains without it.
        """
        rng = torch.Generator().manual_seed(step_seed(self._recipe.seed, 0, _FOR_ALL))
        torch.manual_seed(step_seed(self._recipe.seed, 0, self._fabric.global_rank))
        primary, second = self._prepare(self._batches.example(), rng)
        step = self._training
        expected, trained, reached = trained_parameters(step), set[str](), set[str]()
        for span in self._timeline.spans:
            self.net.freeze_backbone(frozen=span.phase.freeze_backbone)
            clock = self._timeline.clock(self._timeline.first_step(span))
            with self._fabric.autocast():
                reached |= reached_parameters(step, primary, second, clock)
            trained |= trained_parameters(step)
        self.net.freeze_backbone(frozen=False)
        if expected - reached:
            find_unused(self._fabric)
        if (unused := trained - reached) and warn and self._fabric.is_global_zero:
            warnings.warn(describe_unused(unused), stacklevel=2)
        return unused

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


def add(sums: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    """Add terms to sums, name by name."""
    for name, term in terms.items():
        sums[name] = sums[name] + term if name in sums else term


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of one step in one process, below 2**63 (torch takes no more).

    Augmentation and dropout depend on it alone, so that a stopped run needs no generator state to go on.
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
