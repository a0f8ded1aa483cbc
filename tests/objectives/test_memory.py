"""What is remembered, in one process and in two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from sdcompress.objectives.memory import ClassMemory, SampleMemory

LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def test_a_sample_recalls_its_own_last_prediction() -> None:
    memory = SampleMemory(samples=4, classes=2)
    first, second = torch.tensor([[0.8, 0.2], [0.3, 0.7]]), torch.tensor([[0.6, 0.4], [0.5, 0.5]])
    assert torch.equal(memory(torch.tensor([3, 0]), first, LABELS), LABELS)  # nothing seen yet
    recalled = memory(torch.tensor([0, 1]), second, LABELS)
    assert torch.equal(recalled, torch.tensor([[0.3, 0.7], [0.0, 1.0]]))  # sample 0 as in the first step, 1 unseen
    recalled = memory(torch.tensor([3, 0]), first, LABELS)
    assert torch.equal(recalled, torch.tensor([[0.8, 0.2], [0.6, 0.4]]))


def test_of_a_sample_that_is_twice_in_a_batch_the_first_prediction_is_remembered() -> None:
    memory = SampleMemory(samples=3, classes=2)
    memory(torch.tensor([2, 1, 2]), torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]]), LABELS[[0, 0, 0]])
    recalled = memory(torch.tensor([2, 1, 0]), torch.full((3, 2), 0.5), LABELS[[1, 1, 1]])
    assert torch.equal(recalled, torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.0, 1.0]]))


def test_a_class_recalls_the_mean_correct_prediction_of_the_epoch_before() -> None:
    memory = ClassMemory(classes=2)
    labels = torch.tensor([0, 0, 1])
    predictions = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])  # right, right, wrong
    one_hot = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # of a class that is not yet learnt, too
    assert torch.equal(memory(labels, predictions, epoch=0), one_hot)
    assert torch.equal(memory(labels, predictions, epoch=0), one_hot)
    for _ in range(2):  # the labels stay for the whole epoch, in which only class 1 is right
        recalled = memory(labels, torch.tensor([[0.1, 0.9]] * 3), epoch=1)
        torch.testing.assert_close(recalled, torch.tensor([[0.7, 0.3], [0.7, 0.3], [0.0, 1.0]]))
    recalled = memory(labels, predictions, epoch=2)
    torch.testing.assert_close(recalled, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.1, 0.9]]))


def test_memories_take_no_gradient() -> None:
    predictions = torch.tensor([[0.8, 0.2], [0.3, 0.7]], requires_grad=True)
    assert not SampleMemory(2, 2)(torch.tensor([0, 1]), predictions, predictions).requires_grad
    assert not ClassMemory(2)(torch.tensor([0, 1]), predictions, 0).requires_grad


PROCESS = """
import sys, torch
from torch import distributed
from sdcompress.objectives.memory import ClassMemory, SampleMemory
rank, rendezvous, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
predictions = torch.tensor([[[0.8, 0.2]], [[0.6, 0.4]]])[rank]
samples, classes = SampleMemory(2, 2), ClassMemory(2)
samples(torch.tensor([rank]), predictions, predictions)
classes(torch.tensor([0]), predictions, 0)
torch.save({**samples.state_dict(), **classes.state_dict()}, f"{out}.{rank}")
distributed.destroy_process_group()
"""


def test_two_processes_hold_one_memory(tmp_path: Path) -> None:
    rendezvous, out = tmp_path / "rendezvous", tmp_path / "state"
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(rendezvous), str(out)]) for rank in (0, 1)
    ]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    states = [torch.load(f"{out}.{rank}", weights_only=True) for rank in (0, 1)]
    for state in states:
        torch.testing.assert_close(state["table"], torch.tensor([[0.8, 0.2], [0.6, 0.4]]))
        torch.testing.assert_close(state["sums"], torch.tensor([[1.4, 0.6], [0.0, 0.0]]))
