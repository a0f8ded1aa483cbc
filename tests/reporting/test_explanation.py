"""The page of an explanation: what it says where early exit wins, loses, or cannot be had."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sdcompress.errors import OutputExistsError
from sdcompress.reporting.explanation.findings import cautions, findings, headline
from sdcompress.reporting.explanation.page import explanation_page
from sdcompress.reporting.explanation.tables import MAX_STRATA, by_depth, details, summary, thinned
from sdcompress.reporting.render import html, markdown
from sdcompress.reporting.write import write
from sdcompress.schema.explain import (
    BreakEven,
    ExitFigures,
    Explanation,
    Interval,
    OperatingPoint,
    Overthinking,
    PolicyFigures,
    ReliabilityBin,
    Risk,
    RiskStep,
    Stratum,
    Truncation,
)
from sdcompress.schema.report import Machine

EXPORT = "sdcompress export CHECKPOINT --layout single --truncate-at exit1 --out FOLDER"
HOSTILE = "<script>alert(1)</script> | `$x$`"


def ms(value: float, half: float = 0.01) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


def exit_(name: str, accuracy: float, reach: float, share: float) -> ExitFigures:
    bins = (ReliabilityBin(low=0.5, high=0.6, samples=10, confidence=0.55, metric=0.5),)
    return ExitFigures(
        name=name, metric=accuracy, ece=0.02, reliability=bins, auroc=0.875, aurc=0.0125, macs=int(reach * 1e6),
        ms=ms(reach), share=share, exited_metric=0.95,
    )  # fmt: skip


def point(accuracy: float, first: float, mean: float, thresholds: Any = (0.9,)) -> OperatingPoint:
    return OperatingPoint(
        thresholds=thresholds, metric=accuracy, shares=(first, 1 - first), mean_ms=mean, mean_macs=mean * 1e6
    )


def explanation(**changed: Any) -> Explanation:
    """1,000 images, two exits of 1 and 2 ms; the policy takes 1.3 ms and is a little less accurate than the last."""
    truncations = (
        Truncation(exit="exit1", metric=0.85, ms=1.0, saving_ms=ms(-0.3), difference=ms(0.04, 0.02)),
        Truncation(exit="final", metric=0.9, ms=2.0, saving_ms=ms(0.7), difference=ms(-0.01, 0.02)),
    )
    policy = PolicyFigures(
        point=point(0.89, 0.75, 1.3), mean_ms=ms(1.3), truncations=truncations, rival="final", verdict="wins"
    )
    fields: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00", "command": "sdcompress explain early", "source": "early",
        "digest": "ab" * 32, "layout": "cascade", "policy_name": "max_prob", "guarantee": "Guarantee: none.",
        "data": "digits", "split": "test", "samples": 1000,
        "metric_name": "accuracy", "binary_loss": True, "stratum": "class", "threads": 1, "turns_ms": ((1.0, 2.0),) * 6,
        "decision_ms": 0.05,
        "machine": Machine(cpu="CPU", cores=2, isa=(), memory_gib=8, gpu=None, os="os", python="3", versions={}),
        "exits": (exit_("exit1", 0.85, 1.0, 0.75), exit_("final", 0.9, 2.0, 0.25)), "policy": policy,
        "strata": (
            Stratum(name="late", samples=500, shares=(0.5, 0.5), metric=0.87, last_exit_metric=0.89),
            Stratum(name="early", samples=500, shares=(1.0, 0.0), metric=0.91, last_exit_metric=0.91),
        ),
        "curve": (point(0.9, 0.0, 2.05), point(0.89, 0.75, 1.3), point(0.85, 1.0, 1.05)),
        "curve_split": "validation", "curve_samples": 500,
        "overthinking": Overthinking(wasteful=0.86, wasted_ms=0.86, destructive=0.02),
        "policy_overthinking": Overthinking(wasteful=0.11, wasted_ms=0.11, destructive=0.01),
        "oracle": point(0.92, 0.85, 1.15, None),
    }  # fmt: skip
    return Explanation(**fields | changed)


def lost(verdict: Any, rival: str | None = "exit1") -> Explanation:
    """The same policy where exit1 is as accurate and takes 1 ms."""
    policy = explanation().policy
    assert policy is not None
    same = policy.truncations[0].model_copy(update={"metric": 0.89, "difference": ms(0, 0.02)})
    truncations = (same, policy.truncations[1])
    changed = {"truncations": truncations, "verdict": verdict, "rival": rival}
    return explanation(policy=policy.model_copy(update=changed))


def risky() -> Risk:
    steps = tuple(
        RiskStep(step=k, thresholds=(0.9,), loss=loss, bound=bound, mean_ms=2 - k / 2)
        for k, (loss, bound) in enumerate([(0, 0), (0.001, 0.008), (0.02, 0.03)])
    )
    return Risk(
        loss="accuracy drop",
        test="betting",
        max_drop=0.01,
        delta=0.05,
        samples=3000,
        certified=1,
        chosen=1,
        steps=steps,
    )


def test_a_win_is_said_with_its_figures() -> None:
    record = explanation()
    assert headline(record) == (
        "Early exit wins here: 1.30 ms on average at 89.00 % accuracy; final alone takes 2.00 ms at 90.00 %, and no"
        " faster exit reaches the policy's accuracy."
    )
    sentences = findings(record)
    assert sentences[0] == (
        "On average the policy takes 0.700 ms (0.690 to 0.710) less than final alone; its accuracy differs by"
        " −1.00 points (95 % interval −3.00 to +1.00, within sampling error)."
    )
    assert not any("sdcompress export" in sentence for sentence in sentences)
    first = "76.9 % of the time is spent up to exit1, which every sample reaches"
    assert f"{first}; 75.0 % exit there, at 95.00 % accuracy." in sentences
    assert "Early exit costs class 'late' most: −2.00 points of accuracy on 500 samples." in sentences


def test_an_exit_that_does_not_pay_is_named_with_the_command_that_leaves_it_out() -> None:
    policy = explanation().policy
    assert policy is not None
    margins = tuple(
        BreakEven(exit=name, reached=share, ms=ms(value))
        for name, share, value in (("exit1", 1, -0.05), ("exit2", 0.9, 0.3), ("exit3", 0.2, -0.005))
    )
    names = ("exit1", "exit2", "exit3", "final")
    record = explanation(
        exits=tuple(exit_(name, 0.9, 1.0, 0.25) for name in names),
        policy=policy.model_copy(update={"break_even": margins}),
    )
    text = " ".join(findings(record))
    # exit3 might pay: not below 0 in every round
    assert "At exit1 so few samples exit that the decisions take longer than the exit saves" in text
    assert "sdcompress export CHECKPOINT --layout cascade --keep-exits exit2 --keep-exits exit3 --out FOLDER" in text
    assert "may take at most: exit2 0.300 ms (0.290 to 0.310); exit3 −0.00500 ms (−0.0150 to 0.00500)." in text
    only = policy.model_copy(update={"break_even": margins[:1]})
    assert "--layout single --out FOLDER" in " ".join(findings(explanation(policy=only)))
    nobody = policy.model_copy(update={"break_even": margins, "point": point(0.9, 0.0, 2.0)})
    assert "so few samples exit" not in " ".join(findings(explanation(policy=nobody)))


def test_a_loss_is_said_and_names_the_command_that_helps() -> None:
    record = lost("loses")
    assert headline(record) == (
        "Early exit loses here: 1.30 ms on average at 89.00 % accuracy, while exit1 alone takes 1.00 ms at 89.00 %."
    )
    assert findings(record)[0].startswith("On average the policy takes 0.300 ms (0.290 to 0.310) more than exit1 alone")
    assert findings(record)[1] == f"Deploy exit1 alone instead: {EXPORT}"


def test_a_saving_within_the_noise_is_none() -> None:
    record = lost("no difference")
    assert headline(record).startswith("Early exit makes no difference here beyond the noise: 1.30 ms on average")
    assert any(EXPORT in sentence for sentence in findings(record))


def test_a_faster_exit_that_cannot_be_told_apart_is_named_beside_a_win() -> None:
    sentences = findings(lost("wins", rival="final"))
    assert any(
        sentence.startswith("exit1 alone is faster still, 1.00 ms") and EXPORT in sentence for sentence in sentences
    )


def test_exits_that_are_ensembles_stay_so_in_what_is_to_be_exported() -> None:
    ensembles = {"exits_are_ensembles": True}
    record = lost("loses").model_copy(update=ensembles)
    alone = EXPORT.replace(" --out", " --ensemble geometric --out")
    assert findings(record)[1] == f"Deploy exit1 alone instead: {alone}"
    whole = explanation(layout="all", policy=None, curve=(), curve_split=None, **ensembles)
    assert "--layout cascade --ensemble geometric --out FOLDER" in findings(whole)[0]
    policy = explanation().policy
    assert policy is not None
    losing = policy.model_copy(update={"break_even": (BreakEven(exit="exit1", reached=1, ms=ms(-0.05)),)})
    assert "--layout single --ensemble geometric --out" in " ".join(findings(explanation(policy=losing, **ensembles)))


def test_where_nobody_leaves_it_says_so() -> None:
    policy = lost("loses").policy
    assert policy is not None
    nobody = explanation(policy=policy.model_copy(update={"point": point(0.9, 0.0, 2.05)}))
    assert findings(nobody)[0].startswith("No sample exits before the last exit.")


def test_without_a_policy_it_says_how_to_get_one() -> None:
    record = explanation(policy=None, policy_overthinking=None, strata=())
    assert headline(record) == "There is no policy yet, so that every sample runs to the last exit."
    assert findings(record)[0] == "Choose thresholds: sdcompress calibrate early --max-drop 1% --out FOLDER"
    spaced = record.model_copy(update={"source": "my early"})
    assert findings(spaced)[0] == "Choose thresholds: sdcompress calibrate 'my early' --max-drop 1% --out FOLDER"
    assert any("makes no decisions" in sentence for sentence in cautions(record))
    assert "policy saves" not in summary(record).columns


def test_what_flatters_is_said() -> None:
    same = cautions(explanation(split="validation"))
    assert any("on the same validation samples" in sentence for sentence in same)
    assert any("evaluate them on the test split" in sentence for sentence in same)
    assert not any("the very" in sentence for sentence in cautions(explanation()))
    shaky = explanation(exits=(exit_("exit1", 0.999, 0.1, 0.5), exit_("final", 0.9, 2.0, 0.5)), threads=2)
    assert any("differ by up to 20.0 %" in sentence for sentence in cautions(shaky))
    assert any("Fewer than 20 mistakes at exit1:" in sentence for sentence in cautions(shaky))
    assert any("2 threads" in sentence for sentence in cautions(shaky))


def test_heads_that_the_engine_leaves_out_are_said_to_be_in_the_times() -> None:
    policy = explanation().policy
    assert policy is not None
    never = policy.model_copy(update={"point": point(0.9, 0.0, 2.05, (1.5,))})
    (sentence,) = (one for one in cautions(explanation(policy=never)) if "threshold" in one)
    assert sentence.startswith("No score reaches the threshold of exit1: the engine leaves such heads out.")
    for record in (explanation(), explanation(policy=None), explanation(policy=never, turns_ms=())):
        assert not any("reaches the threshold" in one for one in cautions(record))


def test_the_time_is_parted_without_a_rest() -> None:
    table = next(table for table in details(explanation()) if table.title == "Where the time goes")
    # 1 ms by all, 1 ms by a quarter, and 0.05 ms for each that decides at exit1
    assert [row[3] for row in table.rows] == ["1.00 ms", "0.250 ms", "0.0500 ms"]
    assert [row[4] for row in table.rows] == ["76.9 %", "19.2 %", "3.8 %"]


def test_risk_is_shown_step_by_step() -> None:
    record = explanation(risk=risky())
    table = next(table for table in details(record) if table.title.startswith("Risk"))
    assert [row[0] for row in table.rows] == ["0", "1 (chosen)", "2"]
    assert [row[-2:] for row in table.rows] == [("0.00 %", "yes"), ("0.80 %", "yes"), ("3.00 %", "no")]
    assert findings(record)[-1] == (
        "The policy is step 1 of the certificate's path, of which 1 are certified for 1 %: measured 0.10 %,"
        " bound 0.80 %."
    )


@pytest.mark.parametrize(
    ("group_by", "words"),
    [
        (None, "are certified for it."),
        ("class", "Loss and bound are those of the worst class."),
        ("exit", "Loss and bound are those of the samples up to the exit at which they are largest."),
    ],
)
def test_the_risk_of_groups_says_which_samples_it_counts(group_by: str | None, words: str) -> None:
    record = explanation(risk=risky().model_copy(update={"group_by": group_by}))
    table = next(table for table in details(record) if table.title.startswith("Risk"))
    assert str(table.note).endswith(words)


def test_of_many_classes_the_ends_are_shown() -> None:
    many = tuple(
        Stratum(name=f"class {k}", samples=1, shares=(1 - k / 99, k / 99), metric=1, last_exit_metric=1)
        for k in range(100)
    )
    shown = [one.name for one in by_depth(many)]
    assert len(shown) == MAX_STRATA
    assert (shown[0], shown[-1]) == ("class 0", "class 99")
    assert "Of 100 classes the 6 earliest and the 6 latest" in html(explanation_page(explanation(strata=many)))
    assert (thinned(100, 3), thinned(2, 12)) == ([0, 50, 99], [0, 1])


@pytest.mark.parametrize(
    "changed",
    [
        {"layout": "all", "turns_ms": (), "curve": (), "curve_split": None, "policy": None, "policy_overthinking": None,
         "exits": tuple(e.model_copy(update={"ms": None}) for e in explanation().exits)},
        {"layout": "single", "exits": explanation().exits[-1:], "curve": (), "curve_split": None, "policy": None,
         "policy_overthinking": None, "overthinking": None, "oracle": None, "strata": ()},
    ],
)  # fmt: skip
def test_what_has_no_early_exit_gets_what_makes_sense(changed: dict[str, Any]) -> None:
    record = explanation(**changed)
    page = html(explanation_page(record))
    assert "saves nothing" in headline(record) or headline(record).startswith("The only exit, final, has 90.00 %")
    assert "Reliability" in page
    assert "Accuracy on a budget" not in page


def test_the_three_files_say_the_same(tmp_path: Path) -> None:
    record = explanation(risk=risky())
    page = write(record, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["explain.html", "explain.json", "explain.md"]
    assert Explanation.model_validate_json((tmp_path / "out" / "explain.json").read_text(encoding="utf-8")) == record
    text, plain = page.read_text(encoding="utf-8"), (tmp_path / "out" / "explain.md").read_text(encoding="utf-8")
    for expected in ("wins here", "1.30 ms", "0.875", "1.250 %", "explain.json", "one thread"):
        assert expected in text
        assert expected in plain or expected == "explain.json"
    with pytest.raises(OutputExistsError, match=r"explain\.json"):
        write(record, tmp_path / "out")


def test_the_page_is_self_contained() -> None:
    text = html(explanation_page(explanation(risk=risky())))
    assert not re.search(r"(?i)https?:|//[a-z]|@import|url\((?!#)|<script", text)
    assert text.count('role="img"') == 4
    assert "#0102" not in text  # every stand-in colour became a variable


def test_hostile_names_are_text() -> None:
    text = explanation().model_dump_json().replace('"exit1"', f'"{HOSTILE}"').replace('"early"', f'"{HOSTILE}"')
    hostile = explanation_page(Explanation.model_validate_json(text))
    assert "<script" not in html(hostile)
    assert "<script>" not in markdown(hostile).replace("\\<script\\>", "")


def test_graded_losses_are_not_called_right_or_wrong() -> None:
    exits = tuple(
        e.model_copy(update={"standard_error": 0.01, "ece": None, "auroc": None, "reliability": ()})
        for e in explanation().exits
    )
    record = explanation(metric_name="jaccard", binary_loss=False, exits=exits)
    sentences = findings(record)
    assert (
        "In the whole network 86.0 % of the samples are at their lowest loss before the last exit; 0.860 ms per sample"
        " come after that."
    ) in sentences
    assert "2.00 % of all samples are at a lower loss earlier than at the last exit." in sentences
    assert any(
        s.startswith("Exiting at the first exit with the lowest loss, which only an oracle can") for s in sentences
    )
    assert not any("mistakes" in sentence for sentence in cautions(record))
    exits_table = next(table for table in details(record) if table.title == "Exits")
    assert "AURC" in exits_table.columns
    assert not {"ECE", "AUROC"} & set(exits_table.columns)
    # 0.9 +- 1.96 * 0.01, not Wilson's interval of 900 of 1,000
    assert any("90.00 % [88.04, 91.96]" in cell for row in summary(record).rows for cell in row)
    page = markdown(explanation_page(record))
    for word in ("Wilson", "ECE", "AUROC", " right", "wrong", "correct", "Reliability"):
        assert word not in page
