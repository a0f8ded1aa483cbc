"""Run the training loop: epochs of steps, evaluation, checkpoints, a clean stop, a check of the loss."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from sdcompress import methods
from sdcompress.checkpoint import Checkpoint
from sdcompress.data.lengths import example_lengths
from sdcompress.data.samples import Dataset, Samples
from sdcompress.errors import Interrupted, TrainingDivergedError
from sdcompress.models.multiexit import MultiExit
from sdcompress.progress import Progress
from sdcompress.schema import recipe as recipes
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.training import Extension
from sdcompress.training.batches import Batches, Fetch, host, resident
from sdcompress.training.check_recipe import method_sha256
from sdcompress.training.learner import Learner, add
from sdcompress.training.metrics_log import MetricsLog
from sdcompress.training.save import save
from sdcompress.training.validation_scores import exit_scores

__all__ = ["StopRequest", "Trainer", "stop_on_signal"]

OnEpoch = Callable[[dict[str, float]], None]
WATCH = 50  # steps between looks at the loss on a device that would have to be waited for
RESIDENT = 0.25  # of the free memory of a GPU may hold the training examples


@dataclass
class _EpochSoFar:
    """What the line of metrics.jsonl needs of the steps of an epoch, those before a stop included.

    Attributes:
        losses: sums of the loss terms over the steps, scalars.
        before: seconds of the steps before the last stop.
        began: when this process began its first step of the epoch.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    before: float = 0.0
    began: float = 0.0

    @property
    def seconds(self) -> float:
        """Return the seconds that the epoch has taken."""
        return self.before + time.perf_counter() - self.began


class Trainer:
    """One training run in one process.

    Args:
        recipe: what to train.
        dataset: on what.
        fabric: where, launched.
        out: folder of the run.
        start: the checkpoint to go on from.
        extensions: of the training, if it was made longer.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        fabric: Fabric,
        out: Path,
        start: Checkpoint | None = None,
        *,
        extensions: tuple[Extension, ...] = (),
    ) -> None:
        self.recipe, self.dataset, self.fabric, self.out = recipe, dataset, fabric, out
        self._extensions = extensions
        spec, view = recipe.train, methods.build(recipe.method).needs.view
        self.batches = Batches(
            _fetch(dataset.train, spec, fabric.device),
            len(dataset.train),
            spec.batch_size,
            seed=recipe.seed,
            rank=fabric.global_rank,
            world=fabric.world_size,
            parts=spec.accumulate,
            companions=view.samples if view else "same",
            workers=spec.workers,
            sampling=spec.sampling,
            strata=dataset.task.strata(dataset.train.targets),
            lengths=example_lengths(dataset.train, dataset.modality),
        )
        self.learner = Learner(recipe, dataset, self.batches, fabric, start)
        self.watch = 1 if fabric.device.type == "cpu" else WATCH
        self._kept = start.path if start else None
        self._epoch = _EpochSoFar()
        if start is not None:  # perhaps from the middle of an epoch
            sums = start.state.epoch_losses
            self._epoch.losses = {name: torch.tensor(total, device=fabric.device) for name, total in sums.items()}
            self._epoch.before = start.state.epoch_seconds

    @property
    def net(self) -> MultiExit:
        """Return the network that learns."""
        return self.learner.net

    def run(self, request: StopRequest, *, on_step: Progress | None = None, on_epoch: OnEpoch | None = None) -> None:
        """Train to the end, or until asked to stop.

        Args:
            request: asks to stop after the step under way.
            on_step: called with (steps done, all steps).
            on_epoch: called with the line of metrics.jsonl after each epoch.

        Raises:
            Interrupted: if asked to stop; everything is kept.
            TrainingDivergedError: if the loss is not finite; the last good checkpoint is kept.
        """
        learner = self.learner
        metrics_log = MetricsLog(self.out, learner.step) if self.fabric.is_global_zero else None
        try:
            per_epoch = self.batches.steps_per_epoch
            while learner.step < learner.steps:
                learner.begin_epoch()
                self._epoch.began = time.perf_counter()
                epoch, first = divmod(learner.step, per_epoch)
                for parts in self.batches.epoch(epoch, first):
                    add(self._epoch.losses, learner.learn(parts))
                    if on_step:
                        on_step(learner.step, learner.steps)
                    if learner.step % per_epoch:  # the last step's checkpoint comes after the line of its epoch
                        self._after_step(request)
                self._check_finite()
                line = self._measure()
                self._epoch = _EpochSoFar()
                if metrics_log:
                    metrics_log.write(line)
                if on_epoch:
                    on_epoch(line)
                self._after_step(request)
        finally:
            if metrics_log:
                metrics_log.close()

    def _after_step(self, request: StopRequest) -> None:
        if self.learner.step % self.watch == 0:
            self._check_finite()
        stop = self.learner.step < self.learner.steps and self._stops(request)
        if stop or self._due():
            self._keep()
        if stop:
            raise Interrupted(
                f"Stopped after step {self.learner.step} of {self.learner.steps}; everything is kept in {self.out}.",
                next_step="run the same command again to go on from here",
            )

    def _stops(self, request: StopRequest) -> bool:
        """Whether any process was asked to stop: all stop after the same step, or the others would wait for ever."""
        if self.fabric.world_size == 1:
            return request.asked
        if self.learner.step % self.watch:
            return False
        asked = torch.tensor(int(request.asked), device=self.fabric.device)
        return bool(self.fabric.all_reduce(asked, reduce_op="sum"))

    def _due(self) -> bool:
        """Return whether a checkpoint is due."""
        spec, (epochs, rest) = self.recipe.train, divmod(self.learner.step, self.batches.steps_per_epoch)
        whole = rest == 0 and (epochs % spec.checkpoint_every == 0 or self.learner.step == self.learner.steps)
        return whole or (spec.checkpoint_steps > 0 and self.learner.step % spec.checkpoint_steps == 0)

    def _check_finite(self, *tensors: Tensor) -> None:
        broken = [name for name, total in self._epoch.losses.items() if not math.isfinite(total.item())]
        if not broken and all(torch.isfinite(tensor).all() for tensor in tensors):
            return
        kept = f"the last good checkpoint is {self._kept}" if self._kept else "there was no checkpoint yet"
        raise TrainingDivergedError(
            f"The loss is not finite at step {self.learner.step} ({', '.join(broken) or 'weights'}); {kept}.",
            allowed="finite numbers",
            next_step="try a lower rate (--set train.optimizer.lr=...), a warm-up (train.schedule.warmup_epochs=5), "
            "train.clip_grad=5, or train.precision=32-true, with --overwrite",
        )

    def _measure(self) -> dict[str, float]:
        """Return the line of metrics.jsonl of an epoch that is over."""
        done, per_epoch, seconds = self.learner.step, self.batches.steps_per_epoch, self._epoch.seconds
        losses = {name: total / per_epoch for name, total in self._shared_losses().items()}
        line = {
            "epoch": done // per_epoch,
            "step": done,
            "lr": self.learner.rate,
            "seconds": round(seconds, 3),
            "samples_per_second": round(
                per_epoch * min(self.recipe.train.batch_size, len(self.dataset.train)) / seconds, 1
            ),
            "loss": sum(losses.values()),
            **{f"loss/{name}": value for name, value in losses.items()},
        }
        due = line["epoch"] % self.recipe.train.evaluate_every == 0 or done == self.learner.steps
        if due and len(self.dataset.val):
            task, modality = self.dataset.task, self.dataset.modality
            learner, fabric = self.learner, self.fabric
            scores = exit_scores(
                learner.eval_model, self.dataset.val, task, modality, fabric=fabric, features=learner.val_features
            )
            line |= {f"val_{task.metric}/{name}": value for name, value in scores.items()}
        return line

    def _shared_losses(self) -> dict[str, float]:
        """Return the sums of the loss terms over the epoch so far, mean over the processes."""
        sums = self._epoch.losses
        if not sums:
            return {}
        means = self.fabric.all_reduce(torch.stack([*sums.values()]), reduce_op="mean")
        return dict(zip(sums, cast("Tensor", means).tolist(), strict=True))

    def _keep(self) -> None:
        """Write a checkpoint, after a look at everything that goes into it."""
        self._check_finite(*self.learner.tensors_checked_finite())
        self._kept = save(
            self.out,
            self.learner.resumable_state(),
            self.dataset.modality,
            write=self.fabric.is_global_zero,
            recipe=self.recipe,
            epoch=self.learner.step // self.batches.steps_per_epoch,
            step=self.learner.step,
            finished=self.learner.step == self.learner.steps,
            epoch_losses=self._shared_losses(),
            epoch_seconds=round(self._epoch.seconds, 3) if self._epoch.losses else 0.0,
            samples=len(self.dataset.train),
            task=self.dataset.task.record,
            outputs=self.dataset.outputs,
            backbone_options=getattr(self.learner.net.backbone, "rebuild_options", {}),
            data_fingerprint=self.dataset.fingerprint,
            extensions=self._extensions,
            loaded=self.learner.loaded,
            teacher=self.learner.teacher,
            pruned=self.learner.pruned,
            data_layout=self.dataset.layout,
            method_sha256=method_sha256(self.recipe),
            threads=torch.get_num_threads(),
        )
        self.fabric.barrier()


def _fetch(samples: Samples, spec: recipes.Train, device: torch.device) -> Fetch:
    """Fetch from the device if the recipe says so, or if it is a GPU with room for the examples; else from the host."""
    if _fits(samples, device) if spec.data_on_device is None else spec.data_on_device:
        return resident(samples, device)
    return host(samples, pin=device.type == "cuda")


def _fits(samples: Samples, device: torch.device) -> bool:
    if device.type != "cuda" or not samples.in_memory:
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return len(samples) * samples.examples(np.zeros(1, np.int64)).nbytes < free * RESIDENT


class StopRequest:
    """Set when the user, or the system that runs the job, asks to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """While the block runs, the first SIGINT or SIGTERM only sets the request; the next one acts as before.

    Outside the main thread Python allows no handlers: there nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def ask(_number: int, _frame: FrameType | None) -> None:
        request.asked = True
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in signals:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
