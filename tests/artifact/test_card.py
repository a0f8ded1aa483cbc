"""The card tells a stranger what this is and what it scores. That its code runs is tested in tests/export."""

from __future__ import annotations

from pathlib import Path

from sdcompress.artifact.card import card_of
from sdcompress.artifact.read import open_artifact
from sdcompress.schema.manifest import Policy


def test_the_card_says_what_it_is_and_what_it_scores(artifact: Path) -> None:
    m = open_artifact(artifact).manifest
    policy = Policy(
        thresholds=(0.875,),
        max_drop=0.01,
        samples=100,
        metric=0.9,
        reference_metric=0.91,
        shares=(0.5, 0.5),
        stage_ms=(1.0, 2.0),
    )
    text = card_of(m.model_copy(update={"policy": policy}))
    assert text.startswith("# tiny (cascade)\n")
    assert "2 classes: backbone `cifar:resnet8`, trained with `byot`" in text
    # each segment has 10 million MACs; the scores of the last exit are not known
    assert "| exit1 | 75.00 % | 0.0200 | 10.00 M | 1.0e-06 |" in text
    assert "| final | - | - | 20.00 M | 1.0e-06 |" in text
    assert "0.500 M parameters" in text
    assert "by the policy `max_prob`: exit1 at a score of 0.8750" in text
    assert "90.00 % against 91.00 %" in text
    shut = policy.model_copy(update={"thresholds": (2.0,)})
    assert "exit1 never; the rest at final" in card_of(m.model_copy(update={"policy": shut}))
    assert "by the policy" not in card_of(m)
