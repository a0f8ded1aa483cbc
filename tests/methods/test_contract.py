"""What every method owes, whoever wrote it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from steps import Tags
from torch import Tensor, nn

from sdcompress import methods, registry
from sdcompress.methods._base import LabelMethod
from sdcompress.methods._labelled import Labelled
from sdcompress.objectives.batch import Batch, Minibatch, Mix
from sdcompress.schema import recipe

if TYPE_CHECKING:
    from sdcompress.methods._base import Method

NAMES = registry.names(methods.ROOM)
COMBINED = ("eed+ps_kd", "self_distillation+label_smooth", "med+tf_kd")
# each once with every term that is off by default
PARAMETERS = {"self_distillation": {"feature_weight": 1}}


def _make(name: str, **parameters: Any) -> Method:
    return methods.build(recipe.MethodSection(name=name, **{**PARAMETERS.get(name, {}), **parameters}))


@dataclass(frozen=True, kw_only=True)
class Uniform(LabelMethod):
    """Nothing is known of any sample."""

    def label(self, logits: Tensor, batch: Batch, state: nn.Module) -> Tensor:
        return torch.full_like(logits, 1 / logits.shape[1])


PHASES = [(name, phase) for name in (*NAMES, *COMBINED) for phase in range(len(_make(name).phases))]


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_terms_are_finite_scalars_with_a_gradient(name: str, phase: int, case: Any, batch: Any) -> None:
    for term in case(_make(name))(batch(), phase).values():
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert term.isfinite()
        assert term.requires_grad


@pytest.mark.parametrize("name", [*NAMES, *COMBINED])
def test_every_parameter_learns_in_some_phase(name: str, case: Any, batch: Any) -> None:
    made = case(_make(name))
    for phase in range(made.phases):
        made.loss(batch(), phase).backward()
    trained = [*made.net.named_parameters(), *made.state.named_parameters()]
    silent = [key for key, p in trained if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(("name", "phase"), PHASES)
@pytest.mark.parametrize("size", [4, 12, 16])
def test_the_loss_does_not_depend_on_how_a_batch_is_split(
    name: str, phase: int, size: int, case: Any, batch: Any
) -> None:
    # the discrepancy of ddgsd compares whole batches, as its file says
    made = case(_make(name, **({"feature_weight": 0} if name == "ddgsd" else {})))
    made(batch(16, start=16), phase)  # memories are not empty
    whole = batch(size)

    def loss(part: slice) -> Tensor:
        (images,), targets, index, _ = whole.samples
        step = replace(whole, samples=Minibatch((images[part],), targets[part], index[part]))
        return copy.deepcopy(made).loss(step, phase)

    halves = loss(slice(size // 2)), loss(slice(size // 2, None))
    torch.testing.assert_close(torch.stack(halves).mean(), loss(slice(None)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_a_resumed_state_gives_the_same_bits(name: str, phase: int, case: Any, batch: Any) -> None:
    made, resumed = case(_make(name)), case(_make(name))
    for epoch in range(2):
        made(batch(epoch=epoch), phase)
    resumed.state.load_state_dict(made.state.state_dict())
    step = batch(epoch=2, progress=0.9)
    expected, found = made(step, phase), resumed(step, phase)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize("name", ["ps_kd", "sfr", "dlb", "eed+ps_kd"])
def test_a_memory_changes_the_loss_so_it_must_be_resumed(name: str, case: Any, batch: Any) -> None:
    made, forgotten = case(_make(name)), case(_make(name))
    for start in (0, 16):
        made(batch(16, start=start, epoch=0))
    step = batch(16, epoch=1)
    assert made.loss(step).item() != forgotten.loss(step).item()


@pytest.mark.parametrize(
    ("name", "off", "control"),
    [
        ("byot", {"kd_weight": 0, "feature_weight": 0}, "deep_supervision"),
        ("self_distillation", {"kd_weight": 0, "feature_weight": 0}, "deep_supervision"),
        ("eed", {"logit_weight": 0, "feature_weight": 0}, "deep_supervision"),
        ("sfr", {"transport_weight": 0, "label_weight": 0}, "deep_supervision"),
        ("med", {"kd_weight": 0}, "deep_supervision"),
        ("dks", {"kd_weight": 0}, "deep_supervision"),
        ("ema_teacher", {"kd_weight": 0}, "deep_supervision"),
        ("trained_teacher", {"kd_weight": 0}, "deep_supervision"),
        ("deep_supervision+ps_kd", {"labels": {"alpha": 0}}, "deep_supervision"),
        ("label_smooth", {"epsilon": 0}, "baseline"),
        ("tf_kd", {"kd_weight": 0}, "baseline"),
        ("ps_kd", {"alpha": 0}, "baseline"),
        ("cs_kd", {"kd_weight": 0}, "baseline"),
        ("born_again", {"kd_weight": 0}, "baseline"),
    ],
)
def test_a_method_without_its_terms_is_its_control_bit_for_bit(
    name: str, off: dict[str, float], control: str, case: Any, batch: Any
) -> None:
    def train(method: Method) -> list[Tensor]:
        made = case(method)
        optimizer = torch.optim.SGD([*made.net.parameters(), *made.state.parameters()], lr=0.1, momentum=0.9)
        losses = []
        for epoch in range(3):
            losses.append(made.loss(batch(epoch=epoch)))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        return [*losses, *made.net.parameters()]

    found, expected = train(_make(name, **off)), train(_make(control))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("dlb", {"kd_weight": 0}),
        ("ddgsd", {"kd_weight": 0, "feature_weight": 0}),
        ("r_drop", {"consistency_weight": 0}),
    ],
)
def test_two_views_without_their_terms_are_the_baseline_on_both(
    name: str, off: dict[str, float], case: Any, batch: Any
) -> None:
    made, plain = case(_make(name, **off)), case(_make("baseline"))
    step = batch()
    views = [step, replace(step, samples=made.second(step.samples))]
    expected = torch.stack([plain.loss(view) for view in views]).mean()
    torch.testing.assert_close(made.loss(step), expected)


def test_deep_supervision_of_one_exit_is_the_baseline(case: Any, batch: Any) -> None:
    made = case(_make("baseline"))
    outputs = made.net(*batch().samples.inputs)
    terms = [_make(name)(outputs, batch(), made.state) for name in ("baseline", "deep_supervision")]
    assert torch.equal(terms[0]["ce"], terms[1]["ce"])


@pytest.mark.parametrize("name", [name for name in NAMES if _make(name).needs.mixing])
def test_a_mix_that_keeps_the_whole_image_changes_nothing(name: str, case: Any, batch: Any) -> None:
    plain = batch()
    targets = plain.samples.targets
    partner = torch.arange(len(targets)).flip(0)

    def loss(step: Batch) -> Tensor:
        made = case(_make(name))
        return torch.stack([made.loss(step, phase) for phase in range(made.phases)]).sum()

    mixed, half = (
        replace(
            plain,
            samples=plain.samples._replace(mix=Mix(targets[partner], torch.full((len(partner),), share), partner)),
        )
        for share in (1.0, 0.5)
    )
    assert torch.equal(loss(plain), loss(mixed))
    assert not torch.equal(loss(plain), loss(half))


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_nothing_waits_for_the_device(name: str, phase: int, case: Any, batch: Any) -> None:
    """A fake CUDA tensor has no values: reading one (item, a branch on a tensor) raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    method = _make(name)
    with FakeTensorMode():
        step = batch()
        with torch.device("cuda"):
            made = case(method)
            (images,), targets, index, _ = step.samples
            moved = Minibatch((images.cuda(),), targets.cuda(), index.cuda())
            on_device = Batch(moved, step.task, epoch=1, progress=0.5)
            terms = made(on_device, phase)
        assert {term.device.type for term in terms.values()} == {"cuda"}


@pytest.mark.parametrize("name", [name for name in NAMES if _make(name).needs.exits])
def test_another_label_of_the_last_exit_reaches_the_last_exit_alone(name: str, case: Any, batch: Any) -> None:
    """What ``method+labels`` gives to its method: nobody who trains with exits may pass it over."""

    def gradients(method: Method) -> list[Tensor | None]:
        made = case(method)
        made.loss(batch(), 0).backward()
        return [parameter.grad for parameter in made.net.classifiers.parameters()]

    plain, replaced = gradients(_make(name)), gradients(Labelled(method=_make(name), labels=Uniform()))
    same = [
        a is None if b is None else a is not None and torch.equal(a, b) for a, b in zip(plain, replaced, strict=True)
    ]
    assert same == [True] * 4 + [False] * 2


@pytest.mark.parametrize("name", [name for name in NAMES if _make(name).needs.tasks is None])
def test_a_method_for_every_task_trains_outputs_that_are_no_classes(name: str, case: Any, batch: Any) -> None:
    """A real step in each phase, smoothed, and mixed where the method allows it: every exit comes nearer its tags."""
    method, tags = _make(name), Tags(("a", "b", "c", "d", "e"))
    made = case(method, 0.1, tags)
    samples = batch(16).samples
    targets = (torch.rand(16, 5, generator=torch.Generator().manual_seed(1)) < 0.5).to(torch.uint8)
    partner = torch.arange(16).flip(0)
    mix = Mix(targets[partner], torch.full((16,), 0.8), partner) if method.needs.mixing else None
    step = Batch(samples._replace(targets=targets, mix=mix), tags)
    optimizer = torch.optim.SGD([*made.net.parameters(), *made.state.parameters()], lr=0.05)
    for phase in range(made.phases):
        before = made.loss(step, phase)
        optimizer.zero_grad()
        before.backward()
        optimizer.step()
        after = made.loss(step, phase)
        assert after.isfinite()
        assert after < before


def test_methods_that_need_classes_say_so() -> None:
    tasks = {name: _make(name).needs.tasks for name in (*NAMES, *COMBINED)}
    only = {"cs_kd", "ema_teacher", "med", "ps_kd", "sfr", "tf_kd", "eed+ps_kd", "med+tf_kd"}
    assert {name for name, served in tasks.items() if served == ("classification",)} == only
    assert {name for name, served in tasks.items() if served is None} == {*NAMES, *COMBINED} - only


def test_the_room_has_the_methods_and_their_controls() -> None:
    expected = {"baseline", "label_smooth", "deep_supervision", "byot", "self_distillation", "eed", "ps_kd", "sfr"}
    expected |= {"dlb", "cs_kd", "ddgsd", "r_drop", "med", "dks", "tf_kd", "ema_teacher", "frskd", "mixskd"}
    expected |= {"fastbert", "born_again"}
    assert expected <= set(NAMES)
