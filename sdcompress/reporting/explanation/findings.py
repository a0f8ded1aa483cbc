"""Sentences of an explanation: whether early exit pays on this machine, and what takes the time."""

from __future__ import annotations

import shlex

from sdcompress.reporting import quantities as q
from sdcompress.reporting.explanation.tables import by_depth
from sdcompress.schema.explain import BreakEven, Explanation, Interval, PolicyFigures, Stratum, Truncation

__all__ = ["cautions", "findings", "headline"]

_MAX_SPREAD = 0.10  # of the rounds; more means that the machine did other work
_MAX_BUSY = 0.5  # cores
_MIN_MISTAKES = 20


def headline(record: Explanation) -> str:
    """Return one sentence that says whether early exit pays here."""
    if record.layout == "all":
        return "One graph computes every exit here, so that early exit saves nothing."
    if len(record.exits) == 1:
        only = record.exits[0]
        reached = q.score(only.metric, record.samples, only.standard_error)
        return f"The only exit, {only.name}, has {reached} {record.metric_name}."
    if record.policy is None:
        return "There is no policy yet, so that every sample runs to the last exit."
    return _pays(record, record.policy)


def _pays(record: Explanation, policy: PolicyFigures) -> str:
    baseline = _baseline(policy)
    policy_text = (
        f"{q.milliseconds(policy.point.mean_ms)} on average at {q.score(policy.point.metric)} {record.metric_name}"
    )
    exit_text = f"{baseline.exit} alone takes {q.milliseconds(baseline.ms)} at {q.score(baseline.metric)}"
    if policy.verdict == "loses":
        return f"Early exit loses here: {policy_text}, while {exit_text}."
    if policy.verdict == "no difference":
        return f"Early exit makes no difference here beyond the noise: {policy_text}, while {exit_text}."
    if policy.rival is None:
        return f"Early exit wins here: {policy_text}; no exit alone reaches that, {exit_text}."
    others = f"no faster exit reaches the policy's {record.metric_name}"
    return f"Early exit wins here: {policy_text}; {exit_text}, and {others}."


def findings(record: Explanation) -> list[str]:
    """Return sentences on the verdict, the other exits, time, strata, overthinking, score and certificate."""
    sentences = _next_step(record)
    if record.policy:
        sentences += [*_verdict(record, record.policy), *_cheaper(record, record.policy), *_time(record, record.policy)]
        sentences += _margins(record, record.policy)
    return [*sentences, *_strata(record), *_overthinking(record), *_oracle(record), *_scores(record), *_risk(record)]


def cautions(record: Explanation) -> list[str]:
    """Return warnings about the figures."""
    sentences = []
    if record.curve and record.curve_split == record.split:
        sentences.append(
            f"The thresholds of the path were chosen on the same {record.split} samples; its figures are optimistic."
        )
    if record.policy and record.split == "validation":
        sentences.append(
            "Thresholds and temperatures were chosen on the validation split; evaluate them on the test split."
        )
    if record.curve and record.policy is None:
        sentences.append("Without a policy the engine makes no decisions: the ms of the path include no time for them.")
    if record.turns_ms and len(record.exits) > 1:
        sentences.append(
            "The ms of an exit are those of the cascade. A network truncated there, without the heads before it, may "
            "take less. Where it is close, compare both artifacts with 'sdcompress bench'."
        )
    if record.turns_ms and (never := _never_taken(record)):
        sentences.append(
            f"No score reaches the threshold of {q.enumeration(never)}: the engine leaves such heads out. The ms here "
            "include them, so that the policy may take less. 'sdcompress bench' measures it as it runs."
        )
    sentences += _unsteady(record) if record.turns_ms else []
    few = [exit_.name for exit_ in record.exits if round((1 - exit_.metric) * record.samples) < _MIN_MISTAKES]
    if few and record.binary_loss:
        sentences.append(f"Fewer than {_MIN_MISTAKES} mistakes at {q.enumeration(few)}: AUROC and AURC depend on them.")
    return sentences


def _never_taken(record: Explanation) -> list[str]:
    thresholds = (record.policy.point.thresholds if record.policy else None) or ()
    return [exit_.name for exit_, threshold in zip(record.exits, thresholds, strict=False) if threshold > 1]


def _unsteady(record: Explanation) -> list[str]:
    sentences = []
    spread = max((exit_.ms.high - exit_.ms.low) / exit_.ms.value for exit_ in record.exits if exit_.ms)
    if spread > _MAX_SPREAD:
        sentences.append(f"The rounds differ by up to {q.share(spread)}: the machine was not steady; measure again.")
    busy = record.machine.busy_cores
    if busy is not None and busy > _MAX_BUSY:
        sentences.append(f"Other work kept {busy:.1f} of the machine's cores busy.")
    if record.threads > 1:
        sentences.append(
            f"Measured with {q.threads(record.threads)}: with other work beside it this is not repeatable."
        )
    return sentences


def _baseline(policy: PolicyFigures) -> Truncation:
    """Return the truncated network with which the verdict compares."""
    return next((row for row in policy.truncations if row.exit == policy.rival), policy.truncations[-1])


def _next_step(record: Explanation) -> list[str]:
    if record.layout == "all":
        return [f"For early exit, export a cascade: {_export(record, 'cascade')}"]
    if len(record.exits) > 1 and record.policy is None:
        return [f"Choose thresholds: sdcompress calibrate {shlex.quote(record.source)} --max-drop 1% --out FOLDER"]
    return []


def _verdict(record: Explanation, policy: PolicyFigures) -> list[str]:
    if not policy.truncations:
        return []
    baseline = _baseline(policy)
    no_early_exit = "No sample exits before the last exit. " if policy.point.shares[-1] == 1 else ""
    comparison = (
        f"{no_early_exit}On average the policy takes {_less(baseline.saving_ms)} than {baseline.exit} alone; its"
        f" {record.metric_name} differs by {q.paired(baseline.difference)}."
    )
    if policy.verdict == "wins":
        return [comparison]
    return [comparison, f"Deploy {baseline.exit} alone instead: {_alone(record, baseline.exit)}"]


def _cheaper(record: Explanation, policy: PolicyFigures) -> list[str]:
    """Name the first exit that is faster than the policy and not shown to be worse."""
    equal = [row for row in policy.truncations if row.saving_ms.high < 0 and row.difference.low <= 0]
    if not equal or policy.verdict == "loses":
        return []
    row = equal[0]
    sentence = (
        f"{row.exit} alone is faster still, {q.milliseconds(row.ms)}; the policy's {record.metric_name} differs by "
        f"{q.paired(row.difference)} on {q.count(record.samples)} samples. If that is good enough: "
        f"{_alone(record, row.exit)}"
    )
    return [sentence]


def _time(record: Explanation, policy: PolicyFigures) -> list[str]:
    if policy.point.mean_ms is None or not record.turns_ms:
        return []
    first = record.exits[0]
    early = policy.point.shares[0]
    first_share = first.ms.value / policy.point.mean_ms if first.ms else 0.0
    reached = f", at {q.score(first.exited_metric)} {record.metric_name}" if first.exited_metric is not None else ""
    time_text = f"{q.share(first_share)} of the time is spent up to {first.name}, which every sample reaches"
    return [f"{time_text}; {q.share(early)} exit there{reached}."]


def _margins(record: Explanation, policy: PolicyFigures) -> list[str]:
    """Name the exits that do not pay, and the largest cost with which the others do."""
    if policy.point.shares[-1] == 1:
        return []
    losing = [margin.exit for margin in policy.break_even if margin.ms.high <= 0]
    sentences = []
    if losing:
        paying = [exit_.name for exit_ in record.exits[:-1] if exit_.name not in losing]
        layout = " ".join(["cascade", *(f"--keep-exits {name}" for name in paying)]) if paying else "single"
        sentences.append(
            f"At {q.enumeration(losing)} so few samples exit that the decisions take longer than the exit saves, "
            f"even if the head took no time. Without: {_export(record, layout)}"
        )
    if undecided := [margin for margin in policy.break_even if margin.exit not in losing]:
        sentences.append(
            "The head of an exit and the transition to the next graph are not measured by themselves. For each sample "
            f"that reaches the exit they may take at most: {'; '.join(map(_margin, undecided))}. If one is close, "
            "export without that exit (--layout cascade --keep-exits, naming those to keep), calibrate, and compare "
            "with 'sdcompress bench'."
        )
    return sentences


def _margin(margin: BreakEven) -> str:
    ends = f"{q.three_digits(margin.ms.low)} to {q.three_digits(margin.ms.high)}"
    return f"{margin.exit} {q.milliseconds(margin.ms.value)} ({ends})".replace("-", "−")


def _strata(record: Explanation) -> list[str]:
    if len(record.strata) < 2 or not record.policy or record.policy.point.shares[-1] == 1:
        return []
    order, word = by_depth(record.strata), record.stratum
    worst = max(record.strata, key=lambda figures: figures.last_exit_metric - figures.metric)
    sentences = [f"Earliest exits {word} {_exits(record, order[0])}; latest {word} {_exits(record, order[-1])}."]
    if worst.metric < worst.last_exit_metric:
        points = q.difference(worst.metric - worst.last_exit_metric)
        figures = f"{points} of {record.metric_name} on {q.count(worst.samples)} samples"
        sentences.append(f"Early exit costs {word} '{worst.name}' most: {figures}.")
    return sentences


def _exits(record: Explanation, figures: Stratum) -> str:
    first, last = record.exits[0].name, record.exits[-1].name
    return f"'{figures.name}' ({q.share(figures.shares[0])} at {first}, {q.share(figures.shares[-1])} at {last})"


def _overthinking(record: Explanation) -> list[str]:
    figures = record.overthinking
    if figures is None:
        return []
    after = "" if figures.wasted_ms is None else f"; {q.milliseconds(figures.wasted_ms)} per sample come after that"
    reached, risen = ("correct", "correct earlier and wrong at the last exit")
    if not record.binary_loss:
        reached, risen = ("at their lowest loss", "at a lower loss earlier than at the last exit")
    return [
        f"In the whole network {q.share(figures.wasteful)} of the samples are {reached} before the last exit{after}.",
        f"{figures.destructive * 100:.2f} % of all samples are {risen}.",
    ]


def _oracle(record: Explanation) -> list[str]:
    oracle, policy = record.oracle, record.policy
    if oracle is None:
        return []
    timed = "" if oracle.mean_ms is None else f" in {q.milliseconds(oracle.mean_ms)} on average"
    gap = ""
    if policy and policy.point.mean_ms is not None and oracle.mean_ms is not None:
        gap = f"; the policy takes {policy.point.mean_ms / oracle.mean_ms:.2f} times that"
    best = f"{q.score(oracle.metric)} {record.metric_name}{timed}{gap}"
    first = "correct exit" if record.binary_loss else "exit with the lowest loss"
    return [f"Exiting at the first {first}, which only an oracle can, gives {best}."]


def _scores(record: Explanation) -> list[str]:
    aurocs = [f"{exit_.name} {exit_.auroc:.3f}" for exit_ in record.exits if exit_.auroc is not None]
    return (
        [f"How well the policy's score separates correct decisions from wrong ones (AUROC): {', '.join(aurocs)}."]
        if aurocs
        else []
    )


def _risk(record: Explanation) -> list[str]:
    risk = record.risk
    if risk is None:
        return []
    step = risk.steps[min(risk.chosen, len(risk.steps) - 1)]
    position = f"step {risk.chosen} of the certificate's path, of which {risk.certified} are certified"
    figures = f"measured {step.loss * 100:.2f} %, bound {step.bound * 100:.2f} %"
    return [f"The policy is {position} for {risk.max_drop * 100:.4g} %: {figures}."]


def _alone(record: Explanation, exit_: str) -> str:
    return _export(record, f"single --truncate-at {exit_}")


def _export(record: Explanation, layout: str) -> str:
    ensemble = " --ensemble geometric" if record.exits_are_ensembles else ""  # else it is another network
    return f"sdcompress export CHECKPOINT --layout {layout}{ensemble} --out FOLDER"


def _less(saving: Interval) -> str:
    """Format a saving as "less" or "more", with the ends of its interval."""
    sign, word = (1, "less") if saving.value > 0 else (-1, "more")
    low, high = map(q.three_digits, sorted((sign * saving.low, sign * saving.high)))
    return f"{q.milliseconds(abs(saving.value))} ({low} to {high}) {word}".replace("-", "−")
