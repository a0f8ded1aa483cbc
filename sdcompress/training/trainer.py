"""The loop: epochs of steps, with evaluation, checkpoints, a stop that keeps everything and a loss that is watched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sdcompress import methods
from sdcompress.checkpoint import Checkpoint
from sdcompress.data.samples import Dataset
from sdcompress.errors import Interrupted, TrainingDivergedError
from sdcompress.methods._base import Context
from sdcompress.models.build import build as build_network
from sdcompress.schema.recipe import Recipe
from sdcompress.training import optimizer as optimizers
from sdcompress.training.augment import Augment
from sdcompress.training.batches import Batches, RawBatch
from sdcompress.training.ema import Ema
from sdcompress.training.interrupt import StopRequest
from sdcompress.training.journal import Journal
from sdcompress.training.randomness import step_seed
from sdcompress.training.save import Resumable, restore, save
from sdcompress.training.step import TrainingStep
from sdcompress.training.validate import exit_accuracies

__all__ = ["Trainer"]

OnStep = Callable[[int, int], None]
OnEpoch = Callable[[dict[str, float]], None]
WATCH = 50  # steps between looks at the loss on a device that would have to be waited for


class Trainer:
    """One training run in one process.

    Args:
        recipe: what to train.
        dataset: on what.
        fabric: where, launched.
        out: folder of the run.
        start: the checkpoint to go on from.
    """

    def __init__(
        self, recipe: Recipe, dataset: Dataset, fabric: Fabric, out: Path, start: Checkpoint | None = None
    ) -> None:
        self.recipe, self.dataset, self.fabric, self.out = recipe, dataset, fabric, out
        spec, method = recipe.train, methods.build(recipe.method)
        torch.manual_seed(recipe.seed)
        self.net = build_network(
            recipe.model, recipe.exits, classes=len(dataset.classes), image=dataset.image, heads=method.needs.exits
        )
        state = method.state(
            Context(len(dataset.train), len(dataset.classes), self.net.feature_sizes, self.net.map_shapes)
        )
        self.layout = torch.channels_last if spec.channels_last else torch.contiguous_format
        self.net.to(memory_format=self.layout)
        compiled = cast("nn.Module", torch.compile(self.net)) if spec.compile else self.net
        step = TrainingStep(compiled, method, state, spec.label_smoothing).to(fabric.device)
        self.optimizer = optimizers.build(spec.optimizer, step.parameters())
        self.ema = Ema(self.net, spec.ema) if spec.ema else None
        self._now = Resumable(self.net, state, self.optimizer, self.ema.net if self.ema else None, {})
        if start is not None:
            restore(start, self._now)
        self.step = start.state.step if start else 0
        self.forward, self.stepper = fabric.setup(step, self.optimizer)
        if self._now.scaler:
            fabric.strategy.precision.load_state_dict(self._now.scaler)
        self.batches = Batches(
            dataset.train,
            spec.batch_size,
            seed=recipe.seed,
            rank=fabric.global_rank,
            world=fabric.world_size,
            workers=spec.workers,
        )
        self.augment = Augment(spec.augment, dataset.preprocess)
        self.steps = spec.epochs * self.batches.steps_per_epoch
        self.watch = 1 if fabric.device.type == "cpu" else WATCH
        self._kept = start.path if start else None

    def run(self, request: StopRequest, *, on_step: OnStep | None = None, on_epoch: OnEpoch | None = None) -> None:
        """Train to the end, or until asked to stop.

        Args:
            request: a wish to stop after the step under way.
            on_step: called with (steps done, all steps).
            on_epoch: called with the line of metrics.jsonl after each epoch.

        Raises:
            Interrupted: if asked to stop; everything is kept.
            TrainingDivergedError: if the loss is not finite; the last good checkpoint is kept.
        """
        journal = Journal(self.out, self.step) if self.fabric.is_global_zero else None
        try:
            per_epoch = self.batches.steps_per_epoch
            while self.step < self.steps:
                epoch, first = divmod(self.step, per_epoch)
                began, sums = time.perf_counter(), dict[str, Tensor]()
                for raw in self.batches.epoch(epoch, first):
                    self._add(sums, self._train_step(raw))
                    if on_step:
                        on_step(self.step, self.steps)
                    if self.step % per_epoch:  # the last step's checkpoint comes after the line of its epoch
                        self._after_step(request, sums)
                self._check_finite(sums)
                line = self._measure(sums, self.step - epoch * per_epoch - first, time.perf_counter() - began)
                if journal:
                    journal.write(line)
                if on_epoch:
                    on_epoch(line)
                self._after_step(request, sums)
        finally:
            if journal:
                journal.close()

    def _train_step(self, raw: RawBatch) -> dict[str, Tensor]:
        recipe, per_epoch = self.recipe, self.batches.steps_per_epoch
        device, seed = self.fabric.device, step_seed(recipe.seed, self.step, self.fabric.global_rank)
        torch.manual_seed(seed)  # dropout and the like
        lr = optimizers.rate(
            recipe.train.schedule,
            lr=recipe.train.optimizer.lr,
            step=self.step,
            steps_per_epoch=per_epoch,
            epochs=recipe.train.epochs,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        images, labels, index = (
            torch.from_numpy(array).to(device, non_blocking=True) for array in (raw.images, raw.labels, raw.index)
        )
        inputs, mix = self.augment(images.permute(0, 3, 1, 2), labels, torch.Generator().manual_seed(seed))
        inputs = inputs.contiguous(memory_format=self.layout)
        clock = (self.step // per_epoch, self.step / self.steps)
        self.stepper.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = self.forward(inputs, labels, index, (mix.labels, mix.weight) if mix else None, clock)
        self.fabric.backward(torch.stack([*terms.values()]).sum())
        if recipe.train.clip_grad:
            self.fabric.clip_gradients(
                self.forward, self.stepper, max_norm=recipe.train.clip_grad, error_if_nonfinite=False
            )
        self.stepper.step()
        if self.ema:
            self.ema.update(self.step)
        self.step += 1
        return {name: term.detach() for name, term in terms.items()}

    @staticmethod
    def _add(sums: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
        for name, term in terms.items():
            sums[name] = sums[name] + term if name in sums else term

    def _after_step(self, request: StopRequest, sums: dict[str, Tensor]) -> None:
        if self.step % self.watch == 0:
            self._check_finite(sums)
        stop = self.step < self.steps and self._stops(request)
        if stop or self._due():
            self._keep(sums)
        if stop:
            raise Interrupted(
                f"Stopped after step {self.step} of {self.steps}; everything is kept in {self.out}.",
                next_step="run the same command again to go on from here",
            )

    def _stops(self, request: StopRequest) -> bool:
        """Whether somebody was asked to stop: all processes stop after one step, or the others would wait for ever."""
        if self.fabric.world_size == 1:
            return request.asked
        if self.step % self.watch:
            return False
        asked = torch.tensor(int(request.asked), device=self.fabric.device)
        return bool(self.fabric.all_reduce(asked, reduce_op="sum"))

    def _due(self) -> bool:
        """Whether a checkpoint is due."""
        spec, (epochs, rest) = self.recipe.train, divmod(self.step, self.batches.steps_per_epoch)
        whole = rest == 0 and (epochs % spec.checkpoint_every == 0 or self.step == self.steps)
        return whole or (spec.checkpoint_steps > 0 and self.step % spec.checkpoint_steps == 0)

    def _check_finite(self, sums: dict[str, Tensor], *tensors: Tensor) -> None:
        broken = [name for name, total in sums.items() if not math.isfinite(total.item())]
        if not broken and all(torch.isfinite(tensor).all() for tensor in tensors):
            return
        kept = f"the last good checkpoint is {self._kept}" if self._kept else "there was no checkpoint yet"
        raise TrainingDivergedError(
            f"The loss is not finite at step {self.step} ({', '.join(broken) or 'weights'}); {kept}.",
            allowed="finite numbers",
            next_step="try a lower rate (--set train.optimizer.lr=...), a warm-up (train.schedule.warmup=5), "
            "train.clip_grad=5, or train.precision=32-true, with --overwrite",
        )

    def _measure(self, sums: dict[str, Tensor], steps: int, seconds: float) -> dict[str, float]:
        done, per_epoch = self.step, self.batches.steps_per_epoch
        losses = {name: total.item() / steps for name, total in sums.items()}
        line = {
            "epoch": done // per_epoch,
            "step": done,
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 3),
            "images_per_second": round(steps * min(self.recipe.train.batch_size, len(self.dataset.train)) / seconds, 1),
            "loss": sum(losses.values()),
            **{f"loss/{name}": value for name, value in losses.items()},
        }
        due = line["epoch"] % self.recipe.train.evaluate_every == 0 or done == self.steps
        if due and len(self.dataset.val):
            net = self.ema.net if self.ema else self.net
            scores = exit_accuracies(net, self.dataset.val, self.dataset.preprocess, self.fabric)
            line |= {f"val_accuracy/{name}": value for name, value in scores.items()}
        return line

    def _keep(self, sums: dict[str, Tensor]) -> None:
        """Write a checkpoint, after a look at everything that goes into it."""
        self._check_finite(sums, *self.net.state_dict().values())
        self._now.scaler = dict(self.fabric.strategy.precision.state_dict())
        if self.fabric.is_global_zero:
            self._kept = save(
                self.out,
                self._now,
                recipe=self.recipe,
                epoch=self.step // self.batches.steps_per_epoch,
                step=self.step,
                finished=self.step == self.steps,
                samples=len(self.dataset.train),
                classes=self.dataset.classes,
                image=self.dataset.image,
                preprocess=self.dataset.preprocess,
                data_fingerprint=self.dataset.fingerprint,
            )
        self.fabric.barrier()
