"""Every method teaches a real network with real exits."""

from __future__ import annotations

import pytest
import torch

from sdcompress import methods, registry
from sdcompress.methods._base import Context
from sdcompress.models.build import build
from sdcompress.objectives.batch import Batch
from sdcompress.schema import recipe


@pytest.mark.parametrize("name", registry.names(methods.ROOM))
def test_a_few_steps_teach_every_exit_the_labels(name: str) -> None:
    torch.manual_seed(0)
    method = methods.build(recipe.Method(name=name))
    spec = recipe.Model(name="cifar:resnet8"), recipe.Exits(auto=2, head="bottleneck")
    net = build(*spec, classes=4, image=(1, 16, 16), heads=method.needs.exits)
    state = method.state(Context(16, 4, net.feature_sizes, net.map_shapes))
    optimizer = torch.optim.SGD([*net.parameters(), *state.parameters()], lr=0.1, momentum=0.9)
    labels = torch.arange(4).repeat(4)
    images = torch.randn(4, 1, 16, 16)[labels] + 0.1 * torch.randn(16, 1, 16, 16)
    for epoch in range(20):
        step = Batch(images, labels, torch.arange(16), epoch=epoch, progress=epoch / 20)
        loss = torch.stack(list(method(net(images), step, state).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = [(logits.argmax(1) == labels).float().mean().item() for logits in net(images).logits]
    assert len(right) == (3 if method.needs.exits else 1)
    assert min(right) >= 0.9
