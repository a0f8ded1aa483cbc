"""Two methods joined by a plus: what is allowed, and where the numbers go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from steps import classes, step_of

from sdcompress import methods
from sdcompress.errors import RecipeError, UnknownNameError, UsageError
from sdcompress.methods._base import Context
from sdcompress.methods._labelled import Labelled
from sdcompress.methods.eed import Eed
from sdcompress.methods.ps_kd import PsKd
from sdcompress.models.outputs import Outputs
from sdcompress.schema import recipe


def test_each_part_gets_its_own_numbers() -> None:
    method = methods.build(recipe.MethodSection(name="eed+ps_kd", labels={"alpha": 0.5}, logit_weight=2))
    assert method == Labelled(method=Eed(logit_weight=2.0), labels=PsKd(alpha=0.5))
    assert method.needs.exits
    assert not method.needs.mixing


def test_it_is_the_method_on_the_labels_of_the_other() -> None:
    torch.manual_seed(0)
    logits = tuple(torch.randn(4, 3) for _ in range(2))
    step = step_of([0, 1, 2, 0], count=3, progress=0.5)
    context = Context(4, 4, classes(3), (3, 3), ((1, 1, 1),) * 2)
    both = methods.build(recipe.MethodSection(name="deep_supervision+ps_kd"))
    state, alone = both.state(context), PsKd().state(context)
    outputs = Outputs(logits, logits, logits)
    for seen in (step, replace(step, progress=0.75)):
        label = PsKd().label(logits[-1], seen, alone)
        plain = methods.build(recipe.MethodSection(name="deep_supervision"))(
            outputs, replace(seen, last_target=label), alone
        )
        assert torch.equal(both(outputs, seen, state)["ce"], plain["ce"])
    assert not torch.equal(label, torch.eye(3)[step.samples.targets])


@pytest.mark.parametrize("name", ["ps_kd+eed", "eed+byot", "ps_kd+label_smooth", "baseline+ps_kd", "born_again+ps_kd"])
def test_what_gives_no_label_or_takes_none_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="cannot be combined") as caught:
        methods.build(recipe.MethodSection(name=name))
    assert "label_smooth, ps_kd, tf_kd" in caught.value.allowed


def test_a_misspelt_part_or_number_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'ps_kd'"):
        methods.build(recipe.MethodSection(name="eed+pskd"))
    with pytest.raises(RecipeError, match="Did you mean 'alpha'"):
        methods.build(recipe.MethodSection(name="eed+ps_kd", labels={"alhpa": 0.5}))
    with pytest.raises(RecipeError, match=r"method\.labels\.alpha is"):
        methods.build(recipe.MethodSection(name="eed+ps_kd", labels={"alpha": 2}))
    with pytest.raises(RecipeError, match=r"method\.labels is 0\.5"):
        methods.build(recipe.MethodSection(name="eed+ps_kd", labels=0.5))


OWN = '''
from dataclasses import dataclass
from sdcompress.methods._base import Method
from steps import classes, step_of

__all__ = ["Mine"]

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    """Half of the first exit's logit, for want of a better idea."""

    share: float = 0.5

    def __call__(self, outputs, batch, state):
        return {"mine": self.share * outputs.logits[0].sum()}
'''


def test_a_file_of_ones_own_is_a_method(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    method = methods.build(recipe.MethodSection(name="mine", file=str(tmp_path / "mine.py"), share=0.25))
    one = torch.ones(1, 1)
    state = method.state(Context(1, 1, classes(1), (1,), ((1,),)))
    assert method(Outputs((one,), (one,), (one,)), step_of([0], count=1), state)["mine"] == 0.25
    with pytest.raises(RecipeError, match="no parameter 'shrae'"):
        methods.build(recipe.MethodSection(name="mine", file=str(tmp_path / "mine.py"), shrae=1))


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        (None, UsageError, "There is no Python file"),
        ("x = 1", UsageError, "names 0 objects"),
        ("__all__ = ['y']", UsageError, "names 0 objects"),
        ("import not_there", UsageError, "cannot be imported.*not_there"),
        ("def", UsageError, "cannot be imported"),
        ("__all__ = ['x']; x = 1", RecipeError, "no method"),
    ],
)
def test_a_file_that_holds_no_method_says_so(
    tmp_path: Path, text: str | None, error: type[Exception], match: str
) -> None:
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(error, match=match):
        methods.build(recipe.MethodSection(name="mine", file=str(tmp_path / "mine.py")))


def test_both_parts_may_have_a_number_of_one_name() -> None:
    both = methods.build(recipe.MethodSection(name="byot+tf_kd", kd_weight=0.3, labels={"kd_weight": 0.2}))
    assert isinstance(both, Labelled)
    assert (both.method.kd_weight, both.labels.kd_weight) == (0.3, 0.2)  # type: ignore[attr-defined]


def test_a_file_may_give_either_part_but_not_the_name_of_a_method_here(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN.replace("outputs.logits[0].sum()", "outputs.logits[0].sum()"))
    file = str(tmp_path / "mine.py")
    assert isinstance(methods.build(recipe.MethodSection(name="mine+ps_kd", file=file)), Labelled)
    for name in ("eed", "eed+ps_kd"):
        with pytest.raises(RecipeError, match="names methods of this package alone") as caught:
            methods.build(recipe.MethodSection(name=name, file=file))
        assert "method.name: mine" in caught.value.next_step
