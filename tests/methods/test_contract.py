"""What every method owes, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from sdcompress import methods, registry
from sdcompress.objectives.batch import Batch, Mix
from sdcompress.schema import recipe

if TYPE_CHECKING:
    from sdcompress.methods._base import Method

NAMES = registry.names(methods.ROOM)
STATEFUL = ("byot", "eed", "ps_kd", "sfr")


def _make(name: str, **parameters: Any) -> Method:
    return methods.build(recipe.Method(name=name, **parameters))


def _loss(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


@pytest.fixture
def setting(network: Any, context: Any) -> Any:
    """The network and the state that a method trains."""

    def make(method: Method) -> tuple[nn.Module, nn.Module]:
        net = network(exits=method.needs.exits)
        return net, method.state(context(exits=method.needs.exits))

    return make


@pytest.mark.parametrize("name", NAMES)
def test_terms_are_finite_scalars_with_a_gradient(name: str, setting: Any, batch: Any) -> None:
    method = _make(name)
    net, state = setting(method)
    step = batch()
    for term in method(net(step.images), step, state).values():
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert term.isfinite()
        assert term.requires_grad


@pytest.mark.parametrize(
    ("name", "parameters"), [*((n, {}) for n in NAMES), ("self_distillation", {"feature_weight": 1})]
)
def test_every_parameter_learns(name: str, parameters: dict[str, float], setting: Any, batch: Any) -> None:
    method = _make(name, **parameters)
    net, state = setting(method)
    step = batch()
    _loss(method(net(step.images), step, state)).backward()
    trained = [*net.named_parameters(), *state.named_parameters()]
    silent = [key for key, p in trained if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [2, 6, 16])
def test_the_loss_does_not_depend_on_how_a_batch_is_split(name: str, size: int, setting: Any, batch: Any) -> None:
    method = _make(name)
    net, state = setting(method)
    whole = batch(size)

    def loss(part: slice) -> Tensor:
        step = replace(whole, images=whole.images[part], labels=whole.labels[part], index=whole.index[part])
        return _loss(method(net(step.images), step, state))

    halves = loss(slice(size // 2)), loss(slice(size // 2, None))
    net, state = setting(method)  # the halves have filled the memory: the whole is taken with a new one
    torch.testing.assert_close(torch.stack(halves).mean(), loss(slice(None)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_state_gives_the_same_bits(name: str, setting: Any, batch: Any) -> None:
    method = _make(name)
    net, state = setting(method)
    for epoch in range(2):
        method(net(batch().images), batch(epoch=epoch), state)
    _, resumed = setting(method)
    resumed.load_state_dict(state.state_dict())
    step = batch(epoch=2, progress=0.9)
    expected, found = (method(net(step.images), step, s) for s in (state, resumed))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize("name", ["ps_kd", "sfr"])
def test_a_memory_changes_the_loss_so_it_must_be_resumed(name: str, setting: Any, batch: Any) -> None:
    method = _make(name)
    net, state = setting(method)
    step = batch(epoch=1)
    for earlier in (0, 0):
        method(net(step.images), batch(epoch=earlier), state)
    _, forgotten = setting(method)
    remembered, blank = (_loss(method(net(step.images), step, s)) for s in (state, forgotten))
    assert remembered.item() != blank.item()


@pytest.mark.parametrize(
    ("name", "off", "control"),
    [
        ("byot", {"kd_weight": 0, "feature_weight": 0}, "deep_supervision"),
        ("self_distillation", {"kd_weight": 0}, "deep_supervision"),
        ("eed", {"logit_weight": 0, "feature_weight": 0}, "deep_supervision"),
        ("sfr", {"transport_weight": 0, "label_weight": 0}, "deep_supervision"),
        ("label_smooth", {"epsilon": 0}, "baseline"),
        ("ps_kd", {"alpha": 0}, "baseline"),
    ],
)
def test_a_method_without_its_terms_is_its_control_bit_for_bit(
    name: str, off: dict[str, float], control: str, setting: Any, batch: Any
) -> None:
    def train(method: Method) -> list[Tensor]:
        net, state = setting(method)
        optimizer = torch.optim.SGD([*net.parameters(), *state.parameters()], lr=0.1, momentum=0.9)
        losses = []
        for epoch in range(3):
            step = batch(epoch=epoch)
            losses.append(_loss(method(net(step.images), step, state)))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        return [*losses, *net.parameters()]

    found, expected = train(_make(name, **off)), train(_make(control))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_deep_supervision_of_one_exit_is_the_baseline(network: Any, batch: Any) -> None:
    step = batch()
    outputs = network(exits=False)(step.images)
    terms = [_make(name)(outputs, step, nn.Module()) for name in ("baseline", "deep_supervision")]
    assert torch.equal(terms[0]["ce"], terms[1]["ce"])


@pytest.mark.parametrize("name", [name for name in NAMES if _make(name).needs.mixing])
def test_a_mix_that_keeps_the_whole_image_changes_nothing(name: str, setting: Any, batch: Any) -> None:
    method = _make(name)
    net, state = setting(method)
    plain = batch()
    mixed = replace(plain, mix=Mix(plain.labels.flip(0), torch.ones(len(plain.labels))))
    half = replace(plain, mix=Mix(plain.labels.flip(0), torch.full((len(plain.labels),), 0.5)))
    plain_loss, mixed_loss, half_loss = (_loss(method(net(plain.images), s, state)) for s in (plain, mixed, half))
    assert torch.equal(plain_loss, mixed_loss)
    assert not torch.equal(plain_loss, half_loss)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_for_the_device(name: str, setting: Any, batch: Any) -> None:
    """A fake CUDA tensor has no values: reading one (item, a branch on a tensor) raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    method = _make(name)
    with FakeTensorMode():
        step = batch()
        with torch.device("cuda"):
            net, state = setting(method)
        on_device = Batch(step.images.cuda(), step.labels.cuda(), step.index.cuda(), epoch=1, progress=0.5)
        terms = method(net(on_device.images), on_device, state)
        assert {term.device.type for term in terms.values()} == {"cuda"}


def test_the_room_has_the_methods_and_their_controls() -> None:
    expected = {"baseline", "label_smooth", "deep_supervision", "byot", "self_distillation", "eed", "ps_kd", "sfr"}
    assert expected <= set(NAMES)
