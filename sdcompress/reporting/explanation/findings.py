"""Sentences of an explanation: whether early exit pays on this machine, and where the time goes."""

from __future__ import annotations

from sdcompress.reporting import quantities as q
from sdcompress.reporting.explanation.tables import by_depth
from sdcompress.reporting.tables import threads
from sdcompress.schema.explain import BreakEven, Explanation, Interval, PolicyFigures, Stratum, Truncation

__all__ = ["cautions", "findings", "headline"]

_SPREAD = 0.10  # of the turns; more means that the machine did other work
_BUSY = 0.5  # cores
_FEW_MISTAKES = 20


def headline(record: Explanation) -> str:
    """Return one sentence that says whether early exit pays here."""
    if record.layout == "all":
        return "One graph computes every exit here, so that early exit saves nothing."
    if len(record.exits) == 1:
        only = record.exits[0]
        return f"The only exit, {only.name}, is right on {q.score(only.metric, record.samples)}."
    if record.policy is None:
        return "There is no policy yet, so that every sample runs to the last exit."
    return _pays(record.policy)


def _pays(policy: PolicyFigures) -> str:
    against = _against(policy)
    policy_text = f"{q.milliseconds(policy.point.mean_ms)} on average at {q.score(policy.point.metric)}"
    exit_text = f"{against.exit} alone takes {q.milliseconds(against.ms)} at {q.score(against.metric)}"
    if policy.verdict == "loses":
        return f"Early exit loses here: {policy_text}, while {exit_text}."
    if policy.verdict == "no difference":
        return f"Early exit makes no difference here beyond the noise: {policy_text}, while {exit_text}."
    if policy.rival is None:
        return f"Early exit wins here: {policy_text}; no exit alone is as accurate, {exit_text}."
    return f"Early exit wins here: {policy_text}; {exit_text}, and no faster exit is as accurate as the policy."


def findings(record: Explanation) -> list[str]:
    """Return sentences on the verdict, the other exits, the time, the strata, the scores and the losses."""
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
            f"The thresholds of the path were chosen on the same {record.split} images; its figures are optimistic."
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
    sentences += _unsteady(record) if record.turns_ms else []
    few = [exit_.name for exit_ in record.exits if round((1 - exit_.metric) * record.samples) < _FEW_MISTAKES]
    if few:
        sentences.append(f"Fewer than {_FEW_MISTAKES} mistakes at {q.enumeration(few)}: AUROC and AURC depend on them.")
    return sentences


def _unsteady(record: Explanation) -> list[str]:
    sentences = []
    spread = max((exit_.ms.high - exit_.ms.low) / exit_.ms.value for exit_ in record.exits if exit_.ms)
    if spread > _SPREAD:
        sentences.append(f"The turns differ by up to {q.share(spread)}: the machine was not steady; measure again.")
    busy = record.machine.busy_cores
    if busy is not None and busy > _BUSY:
        sentences.append(f"Other work kept {busy:.1f} of the machine's cores busy.")
    if record.threads > 1:
        sentences.append(f"Measured with {threads(record.threads)}: with other work beside it this is not repeatable.")
    return sentences


def _against(policy: PolicyFigures) -> Truncation:
    """Return the truncated network that the verdict compares with."""
    return next((row for row in policy.truncations if row.exit == policy.rival), policy.truncations[-1])


def _next_step(record: Explanation) -> list[str]:
    if record.layout == "all":
        return ["For early exit, export a cascade: sdcompress export CHECKPOINT --layout cascade --out FOLDER"]
    if len(record.exits) > 1 and record.policy is None:
        return [f"Choose thresholds: sdcompress calibrate {record.source} --max-drop 1% --out FOLDER"]
    return []


def _verdict(record: Explanation, policy: PolicyFigures) -> list[str]:
    if not policy.truncations:
        return []
    against = _against(policy)
    no_early_exit = "No sample leaves before the last exit. " if policy.point.shares[-1] == 1 else ""
    comparison = (
        f"{no_early_exit}On average the policy takes {_less(against.saving_ms)} than {against.exit} alone; its"
        f" {record.metric_name} differs by {q.paired(against.difference)}."
    )
    if policy.verdict == "wins":
        return [comparison]
    return [comparison, f"Deploy {against.exit} alone instead: {_export(against.exit)}"]


def _cheaper(record: Explanation, policy: PolicyFigures) -> list[str]:
    """Return the first exit that is faster than the policy and not shown to be less accurate."""
    same = [row for row in policy.truncations if row.saving_ms.high < 0 and row.difference.low <= 0]
    if not same or policy.verdict == "loses":
        return []
    row = same[0]
    sentence = (
        f"{row.exit} alone is faster still, {q.milliseconds(row.ms)}; the policy's {record.metric_name} differs by "
        f"{q.paired(row.difference)} on {q.count(record.samples)} images. If that is good enough: {_export(row.exit)}"
    )
    return [sentence]


def _time(record: Explanation, policy: PolicyFigures) -> list[str]:
    if policy.point.mean_ms is None or not record.turns_ms:
        return []
    first = record.exits[0]
    early = policy.point.shares[0]
    spent = first.ms.value / policy.point.mean_ms if first.ms else 0.0
    right = f", {q.score(first.exited_metric)} of them right" if first.exited_metric is not None else ""
    time_text = f"{q.share(spent)} of the time is spent up to {first.name}, which every image reaches"
    return [f"{time_text}; {q.share(early)} leave there{right}."]


def _margins(record: Explanation, policy: PolicyFigures) -> list[str]:
    """Return which exits do not pay, and the most that the others may cost."""
    if policy.point.shares[-1] == 1:
        return []
    losing = [margin.exit for margin in policy.break_even if margin.ms.high <= 0]
    sentences = []
    if losing:
        paying = [exit_.name for exit_ in record.exits[:-1] if exit_.name not in losing]
        layout = " ".join(["cascade", *(f"--keep-exits {name}" for name in paying)]) if paying else "single"
        sentences.append(
            f"At {q.enumeration(losing)} so few samples leave that the decisions take longer than the exit saves, "
            f"even with a free head. Without: sdcompress export CHECKPOINT --layout {layout} --out FOLDER"
        )
    if undecided := [margin for margin in policy.break_even if margin.exit not in losing]:
        sentences.append(
            "The head of an exit and the hand-over to the next graph are not measured by themselves. For each image "
            f"that reaches the exit they may take at most: {'; '.join(map(_margin, undecided))}. If one is close, "
            "export without that exit (--layout cascade --keep-exits, naming those to keep), calibrate, and compare "
            "with 'sdcompress bench'."
        )
    return sentences


def _margin(margin: BreakEven) -> str:
    low, high = (q.milliseconds(end).removesuffix(" ms") for end in (margin.ms.low, margin.ms.high))
    return f"{margin.exit} {q.milliseconds(margin.ms.value)} ({low} to {high})".replace("-", "−")


def _strata(record: Explanation) -> list[str]:
    if len(record.strata) < 2 or not record.policy or record.policy.point.shares[-1] == 1:
        return []
    order, word = by_depth(record.strata), record.stratum
    worst = max(record.strata, key=lambda figures: figures.last_exit_metric - figures.metric)
    sentences = [f"Earliest leaves {word} {_leaves(record, order[0])}; latest {word} {_leaves(record, order[-1])}."]
    if worst.metric < worst.last_exit_metric:
        lost = round((worst.last_exit_metric - worst.metric) * worst.samples)
        sentences.append(f"Most right answers are lost in {word} '{worst.name}': {lost} of {q.count(worst.samples)}.")
    return sentences


def _leaves(record: Explanation, figures: Stratum) -> str:
    first, last = record.exits[0].name, record.exits[-1].name
    return f"'{figures.name}' ({q.share(figures.shares[0])} at {first}, {q.share(figures.shares[-1])} at {last})"


def _overthinking(record: Explanation) -> list[str]:
    waste = record.overthinking
    if waste is None:
        return []
    spent = "" if waste.wasted_ms is None else f"; {q.milliseconds(waste.wasted_ms)} per image come after that"
    early = f"In the whole network {q.share(waste.wasteful)} of the images are right before the last exit{spent}."
    return [early, f"{waste.destructive * 100:.2f} % of all images are right earlier and wrong at the last exit."]


def _oracle(record: Explanation) -> list[str]:
    oracle, policy = record.oracle, record.policy
    if oracle is None:
        return []
    timed = "" if oracle.mean_ms is None else f" in {q.milliseconds(oracle.mean_ms)} on average"
    gap = ""
    if policy and policy.point.mean_ms is not None and oracle.mean_ms is not None:
        gap = f"; the policy takes {policy.point.mean_ms / oracle.mean_ms:.2f} times that"
    best = f"{q.score(oracle.metric)}{timed}{gap}"
    return [f"Leaving at the first right exit, which only an oracle can, gives {best}."]


def _scores(record: Explanation) -> list[str]:
    aurocs = [f"{exit_.name} {exit_.auroc:.3f}" for exit_ in record.exits if exit_.auroc is not None]
    return [f"How well the score tells right answers from wrong ones (AUROC): {', '.join(aurocs)}."] if aurocs else []


def _risk(record: Explanation) -> list[str]:
    risk = record.risk
    if risk is None:
        return []
    step = risk.steps[min(risk.chosen, len(risk.steps) - 1)]
    position = f"step {risk.chosen} of the certificate's path, of which {risk.certified} are certified"
    figures = f"measured {step.loss * 100:.2f} %, bound {step.bound * 100:.2f} %"
    return [f"The policy is {position} for {risk.max_drop * 100:.4g} %: {figures}."]


def _export(exit_: str) -> str:
    return f"sdcompress export CHECKPOINT --layout single --truncate-at {exit_} --out FOLDER"


def _less(saving: Interval) -> str:
    """Return a saving in words, "less" or "more", with the ends of its interval."""
    sign, word = (1, "less") if saving.value > 0 else (-1, "more")
    low, high = (q.milliseconds(end).removesuffix(" ms") for end in sorted((sign * saving.low, sign * saving.high)))
    return f"{q.milliseconds(abs(saving.value))} ({low} to {high}) {word}".replace("-", "−")
