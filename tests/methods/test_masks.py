"""Every method that serves every task trains on masks, with outputs of every pixel, or says why not."""

from __future__ import annotations

import pytest
import torch

from sdcompress import methods, registry
from sdcompress.errors import RecipeError
from sdcompress.methods._base import Context
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, Minibatch, Mix, SecondView
from sdcompress.schema import recipe
from sdcompress.tasks.segmentation import Segmentation

TASK = Segmentation(("sky", "road", "car"), (6, 8))
MAPS, WIDTHS, SIZE = ((4, 6, 8), (6, 3, 4), (8, 2, 2)), (6, 8, 8), 8
EVERY = {name: methods.build(recipe.MethodSection(name=name)) for name in registry.names(methods.ROOM)}
SERVE = [name for name, method in EVERY.items() if method.needs.tasks is None and name != "frskd"]


def outputs(exits: bool, maps: bool) -> Outputs:
    shapes = MAPS if exits or maps else MAPS[-1:]
    widths = WIDTHS if exits else WIDTHS[-1:]
    logits = [torch.randn(SIZE, 3, 6, 8, requires_grad=True) for _ in widths]
    features = [torch.randn(SIZE, width, requires_grad=True) for width in widths]
    return Outputs(tuple(logits), tuple(features), tuple(torch.randn(SIZE, *shape) for shape in shapes))


@pytest.mark.parametrize("name", SERVE)
def test_a_method_that_serves_every_task_trains_on_masks(name: str) -> None:
    torch.manual_seed(0)
    method = EVERY[name]
    needs = method.needs
    widths = WIDTHS if needs.exits else WIDTHS[-1:]
    state = method.state(Context(32, SIZE, TASK, widths, MAPS if needs.exits or needs.maps else MAPS[-1:]))
    samples = Minibatch(
        (torch.zeros(SIZE, 1),), torch.randint(0, 3, (SIZE, 6, 8), dtype=torch.uint8), torch.arange(SIZE)
    )
    second = None
    if needs.view is not None:
        mix = Mix(samples.targets.flip(0), torch.full((SIZE,), 0.3), torch.arange(SIZE).flip(0))
        mixed = samples._replace(mix=mix) if needs.view.mixed else samples
        second = SecondView(outputs(needs.exits, needs.maps), mixed)
    for phase in range(len(method.phases)):
        seen = outputs(needs.exits, needs.maps)
        batch = Batch(samples, TASK, phase=phase, second=second, teacher=outputs(needs.exits, needs.maps))
        terms = method(seen, batch, state)
        assert all(term.shape == () and term.isfinite() for term in terms.values())
        torch.stack(list(terms.values())).sum().backward()
        assert any(z.grad is not None and z.grad.any() for z in seen.logits)


def test_others_say_why_not() -> None:
    assert {name for name, method in EVERY.items() if method.needs.tasks is not None} == {
        *("cs_kd", "ema_teacher", "med", "ps_kd", "sfr", "tf_kd")
    }
    with pytest.raises(RecipeError, match="pyramid gives one vector"):
        EVERY["frskd"].state(Context(32, SIZE, TASK, WIDTHS[-1:], MAPS))
