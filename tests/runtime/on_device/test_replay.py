"""When work is recorded: logic alone, with a recorder that writes down what it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from sdcompress.runtime.on_device.device import GraphReplay
from sdcompress.runtime.on_device.gpu import GpuDevice
from sdcompress.tensorrt.nvidia.cuda import Cuda


class Notes:
    """Records unless it is told that it cannot."""

    def __init__(self, done: list[str], *, able: bool = True) -> None:
        self.done, self.able = done, able

    def capture(self, queue: Callable[[], None]) -> str | None:
        self.done.append("record")
        return "recording" if self.able else None

    def launch(self, recording: str) -> None:
        self.done.append(f"replay {recording}")


def test_the_first_call_runs_plainly_the_second_records_and_replays() -> None:
    done: list[str] = []
    work = GraphReplay(lambda: done.append("run"), Notes(done))
    work()
    assert not work.recorded
    work()
    work()
    assert work.recorded
    assert done == ["run", "record", "replay recording", "replay recording"]


def test_what_cannot_be_recorded_is_tried_once_and_then_run_plainly() -> None:
    done: list[str] = []
    work = GraphReplay(lambda: done.append("run"), Notes(done, able=False))
    for _ in range(4):
        work()
    assert not work.recorded
    assert done == ["run", "record", "run", "run", "run"]


def test_a_gpu_keeps_the_meaning_of_every_name_of_cuda() -> None:
    """It is recorder, device and CUDA's layer at once: a name with two meanings breaks whoever uses the other."""
    names = {name for name in vars(GpuDevice) if not name.startswith("_")}
    assert names == {"accept", "after"}
    assert not names & set(dir(Cuda))


def test_without_a_recorder_it_always_runs() -> None:
    done: list[str] = []
    work: GraphReplay[str] = GraphReplay(lambda: done.append("run"), None)
    work()
    work()
    assert done == ["run", "run"]
