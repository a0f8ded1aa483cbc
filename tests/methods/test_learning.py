"""Every method teaches a real network with real exits."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import pictures
from steps import classes

from sdcompress import methods, registry
from sdcompress.methods._base import Context
from sdcompress.models.build import build
from sdcompress.objectives.batch import Minibatch, Mix
from sdcompress.schema import recipe
from sdcompress.training.schedule import Clock
from sdcompress.training.step import TrainingStep

STEPS = 20


@pytest.mark.parametrize("name", [*registry.names(methods.ROOM), "eed+ps_kd"])
def test_a_few_steps_teach_every_exit_the_labels(name: str) -> None:
    torch.manual_seed(0)
    method = methods.build(recipe.MethodSection(name=name))
    needs, phases = method.needs, method.phases
    spec = recipe.Model(name="cifar:resnet8"), recipe.Exits(count=2, head="bottleneck")
    net = build(*spec, outputs=(4,), inputs=pictures(1, 16, 16), heads=needs.exits, maps=needs.maps)
    state = method.state(Context(16, 16, classes(4), net.feature_sizes, net.map_shapes))
    labels, order = torch.arange(4).repeat(4), torch.arange(16)
    images = torch.randn(4, 1, 16, 16)[labels] + 0.1 * torch.randn(16, 1, 16, 16)
    own = Minibatch((images,), labels, order)
    second = own._replace(inputs=(images + 0.1 * torch.randn_like(images),)) if needs.view else None
    if second and needs.view and needs.view.mixed:
        partner = order.roll(1)
        mix = Mix(labels[partner], torch.full((16,), 0.5), partner)
        second = second._replace(inputs=((images + images[partner]) / 2,), mix=mix)
    teacher = copy.deepcopy(net).eval().requires_grad_(requires_grad=False)
    step = TrainingStep(
        net,
        method,
        state,
        task=classes(4),
        teacher=teacher if needs.average or needs.teacher or len(phases) > 1 else None,
    )
    for number, phase in enumerate(phases):
        teacher.load_state_dict(net.state_dict())
        net.freeze_backbone(frozen=phase.freeze_backbone)
        optimizer = torch.optim.SGD([*net.parameters(), *state.parameters()], lr=0.05, momentum=0.9)
        for at in range(STEPS):
            terms = step(own, second, Clock(at, at, at / STEPS, number))
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            if needs.average:
                teacher.load_state_dict(net.state_dict())
    right = [(logits.argmax(1) == labels).float().mean().item() for logits in net(images).logits]
    assert len(right) == (3 if needs.exits else 1)
    assert min(right) >= 0.9
