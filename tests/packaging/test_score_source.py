"""A score as source computes what the policy computes, to the bit; the policies themselves are tried in test_triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from signals import TASK, signals_of

from sdcompress.errors import UsageError
from sdcompress.packaging._score_source import DECISION, score_source
from sdcompress.policies._base import ExitPolicy, Signals
from sdcompress.policies.learned import Learned
from sdcompress.policies.patience import Patience


def computed(policy: ExitPolicy, exits: Sequence[Signals]) -> tuple[Any, frozenset[str]]:
    source, keys = score_source(policy, len(exits) - 1, TASK, "score")
    scope: dict[str, Any] = {"np": np, "inf": np.inf, "nan": np.nan}
    exec(source, scope)
    return scope["score"]([{**one.columns, DECISION: one.decision} for one in exits]), keys


@pytest.mark.parametrize("policy", [Learned([[0.1, 2.0, -0.3, 0.7, 0.9], [0.3, 1.1, 0.2, -0.5, 0.4]]), Patience()])
def test_the_source_gives_the_same_bits(policy: ExitPolicy) -> None:
    rng = np.random.default_rng(0)
    exits = [signals_of(rng.normal(size=(50, 2)).astype(np.float32)) for _ in range(2)]
    score, _ = computed(policy, exits)
    np.testing.assert_array_equal(score, policy.score(1, exits))
    assert score.dtype == np.float32


def test_it_names_the_signals_that_are_read() -> None:
    exits = [signals_of(np.zeros((1, 2), np.float32))] * 2
    assert computed(Learned([[0.0] * 5] * 2), exits)[1] == {"max_prob", "second_prob", "entropy", DECISION}
    assert computed(Patience(), exits)[1] == {"max_prob", DECISION}  # a column only for its NaN


class Branching(ExitPolicy):
    def score(self, exit_index: int, signals: Sequence[Signals]) -> Any:
        return np.where(signals[-1]["max_prob"] > 0.5, 1, 0)


class Constant(ExitPolicy):
    def score(self, exit_index: int, signals: Sequence[Signals]) -> Any:
        return np.float32(1)


class Choosing(ExitPolicy):
    def score(self, exit_index: int, signals: Sequence[Signals]) -> Any:
        return np.maximum.reduce([signals[-1]["max_prob"], signals[-1]["entropy"]])  # compares the two as objects


_doubled = np.frompyfunc(lambda value: 2 * value, 1, 1)


class Foreign(ExitPolicy):
    def score(self, exit_index: int, signals: Sequence[Signals]) -> Any:
        return _doubled(signals[-1]["max_prob"])


@pytest.mark.parametrize("policy", [Branching(), Choosing(), Foreign(), Constant()])
def test_a_policy_that_cannot_be_recorded_is_refused(policy: ExitPolicy) -> None:
    with pytest.raises(UsageError, match=type(policy).__name__):
        score_source(policy, 0, TASK, "score")
