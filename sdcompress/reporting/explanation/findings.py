"""What an explanation says in sentences: whether leaving early pays here, and where the time goes."""

from __future__ import annotations

from sdcompress.reporting import quantities as q
from sdcompress.reporting.explanation.tables import by_depth
from sdcompress.reporting.tables import threads
from sdcompress.schema.explain import Class, Explanation, Interval, Margin, PolicyFigures, Truncation

__all__ = ["cautions", "findings", "headline"]

_SPREAD = 0.10  # of the turns: beyond it the machine did other work in between
_BUSY = 0.5  # cores
_FEW_MISTAKES = 20


def headline(found: Explanation) -> str:
    """One sentence: whether leaving early pays here."""
    if found.layout == "all":
        return "One graph computes every exit here, so that leaving early saves nothing."
    if len(found.exits) == 1:
        only = found.exits[0]
        return f"The only exit, {only.name}, is right on {q.accuracy(only.accuracy, found.samples)}."
    if found.policy is None:
        return "There is no policy yet: nobody leaves before the last exit."
    return _pays(found.policy)


def _pays(policy: PolicyFigures) -> str:
    against = _against(policy)
    took = f"{q.milliseconds(policy.point.mean_ms)} on average at {q.accuracy(policy.point.accuracy)}"
    alone = f"{against.exit} alone takes {q.milliseconds(against.ms)} at {q.accuracy(against.accuracy)}"
    if policy.verdict == "loses":
        return f"Early exit loses here: {took}, while {alone}."
    if policy.verdict == "no difference":
        return f"Early exit makes no difference here beyond the noise: {took}, while {alone}."
    if policy.rival is None:
        return f"Early exit wins here: {took}; no exit alone is as accurate, {alone}."
    return f"Early exit wins here: {took}; {alone}, and no faster exit is as accurate as the policy."


def findings(found: Explanation) -> list[str]:
    """The verdict with its figures, then the other exits, the time, the classes, the scores, and what is lost."""
    sentences = _next_step(found)
    if found.policy:
        sentences += [*_verdict(found.policy), *_cheaper(found, found.policy), *_time(found, found.policy)]
        sentences += _margins(found, found.policy)
    return [*sentences, *_classes(found), *_overthinking(found), *_oracle(found), *_scores(found), *_risk(found)]


def cautions(found: Explanation) -> list[str]:
    """What a reader must know before relying on the figures."""
    sentences = []
    if found.curve and found.curve_split == found.split:
        sentences.append(
            f"The thresholds of the path were made on the very {found.split} images it is shown on: flattering."
        )
    if found.policy and found.split == "validation":
        sentences.append("Thresholds and temperatures were chosen on the validation split: the test split judges them.")
    if found.curve and found.policy is None:
        sentences.append("Without a policy the engine decides nothing: the path's ms hold no time for deciding.")
    if found.turns_ms and len(found.exits) > 1:
        sentences.append(
            "The ms of an exit are those of the cascade. Exported alone, without the heads before it, it may take less:"
            " 'sdcompress bench' on both artifacts decides where it is close."
        )
    sentences += _unsteady(found) if found.turns_ms else []
    few = [exit_.name for exit_ in found.exits if round((1 - exit_.accuracy) * found.samples) < _FEW_MISTAKES]
    if few:
        sentences.append(f"Fewer than {_FEW_MISTAKES} mistakes at {_and(few)}: AUROC and AURC rest on them.")
    return sentences


def _unsteady(found: Explanation) -> list[str]:
    sentences = []
    spread = max((exit_.ms.high - exit_.ms.low) / exit_.ms.value for exit_ in found.exits if exit_.ms)
    if spread > _SPREAD:
        sentences.append(f"The turns differ by up to {q.share(spread)}: the machine was not steady; measure again.")
    busy = found.machine.busy_cores
    if busy is not None and busy > _BUSY:
        sentences.append(f"Other work kept {busy:.1f} of the machine's cores busy.")
    if found.threads > 1:
        sentences.append(f"Measured with {threads(found.threads)}: with other work beside it this is not repeatable.")
    return sentences


def _against(policy: PolicyFigures) -> Truncation:
    """What the verdict is about."""
    return next((row for row in policy.truncations if row.exit == policy.rival), policy.truncations[-1])


def _next_step(found: Explanation) -> list[str]:
    if found.layout == "all":
        return ["To leave early, export a cascade: sdcompress export CHECKPOINT --layout cascade --out FOLDER"]
    if len(found.exits) > 1 and found.policy is None:
        return [f"Choose thresholds: sdcompress calibrate {found.source} --max-drop 1% --out FOLDER"]
    return []


def _verdict(policy: PolicyFigures) -> list[str]:
    if not policy.truncations:
        return []
    against = _against(policy)
    nobody = "Nobody leaves before the last exit. " if policy.point.shares[-1] == 1 else ""
    took = (
        f"{nobody}On average the policy takes {_less(against.saving_ms)} than {against.exit} alone; its accuracy"
        f" differs by {q.paired(against.difference)}."
    )
    if policy.verdict == "wins":
        return [took]
    return [took, f"Deploy {against.exit} alone instead: {_export(against.exit)}"]


def _cheaper(found: Explanation, policy: PolicyFigures) -> list[str]:
    """Exits that are clearly faster than the policy, and that these images do not show to be less accurate."""
    same = [row for row in policy.truncations if row.saving_ms.high < 0 and row.difference.low <= 0]
    if not same or policy.verdict == "loses":
        return []
    row = same[0]
    sentence = (
        f"{row.exit} alone is faster still, {q.milliseconds(row.ms)}; the policy's accuracy differs by"
        f" {q.paired(row.difference)} on {q.count(found.samples)} images. If that is good enough: {_export(row.exit)}"
    )
    return [sentence]


def _time(found: Explanation, policy: PolicyFigures) -> list[str]:
    if policy.point.mean_ms is None or not found.turns_ms:
        return []
    first = found.exits[0]
    early = policy.point.shares[0]
    spent = first.ms.value / policy.point.mean_ms if first.ms else 0.0
    right = f", {q.accuracy(first.left_accuracy)} of them right" if first.left_accuracy is not None else ""
    goes = f"{q.share(spent)} of the time goes into the way to {first.name}, which every image takes"
    return [f"{goes}; {q.share(early)} leave there{right}."]


def _margins(found: Explanation, policy: PolicyFigures) -> list[str]:
    """Which exits do not pay, and what the others may cost: a cascade can be exported without any of them."""
    if policy.point.shares[-1] == 1:
        return []
    losing = [margin.exit for margin in policy.margins if margin.ms.high <= 0]
    sentences = []
    if losing:
        kept = [exit_.name for exit_ in found.exits[:-1] if exit_.name not in losing]
        layout = " ".join(["cascade", *(f"--exits {name}" for name in kept)]) if kept else "single"
        sentences.append(
            f"At {_and(losing)} so few leave that deciding takes longer than leaving saves, whatever the head costs. "
            f"Without: sdcompress export CHECKPOINT --layout {layout} --out FOLDER"
        )
    if others := [margin for margin in policy.margins if margin.exit not in losing]:
        sentences.append(
            "For each image that gets to an exit, its head and the hand-over to the next graph, which are not measured "
            f"by themselves, may take at most: {'; '.join(map(_margin, others))}. Export without an exit that is close "
            "(--layout cascade --exits, naming those to keep), calibrate, and let 'sdcompress bench' decide."
        )
    return sentences


def _margin(margin: Margin) -> str:
    low, high = (q.milliseconds(end).removesuffix(" ms") for end in (margin.ms.low, margin.ms.high))
    return f"{margin.exit} {q.milliseconds(margin.ms.value)} ({low} to {high})".replace("-", "−")


def _classes(found: Explanation) -> list[str]:
    if len(found.classes) < 2 or not found.policy or found.policy.point.shares[-1] == 1:
        return []
    order = by_depth(found.classes)
    worst = max(found.classes, key=lambda one: one.last_accuracy - one.accuracy)
    sentences = [f"Earliest leaves class {_leaves(found, order[0])}; latest class {_leaves(found, order[-1])}."]
    if worst.accuracy < worst.last_accuracy:
        lost = round((worst.last_accuracy - worst.accuracy) * worst.samples)
        sentences.append(f"Most right answers are lost in class '{worst.name}': {lost} of {q.count(worst.samples)}.")
    return sentences


def _leaves(found: Explanation, one: Class) -> str:
    first, last = found.exits[0].name, found.exits[-1].name
    return f"'{one.name}' ({q.share(one.shares[0])} at {first}, {q.share(one.shares[-1])} at {last})"


def _overthinking(found: Explanation) -> list[str]:
    waste = found.overthinking
    if waste is None:
        return []
    spent = "" if waste.wasted_ms is None else f"; {q.milliseconds(waste.wasted_ms)} per image come after that"
    early = f"In the whole network {q.share(waste.wasteful)} of the images are right before the last exit{spent}."
    return [early, f"{waste.destructive * 100:.2f} % of all images are right earlier and wrong at the last exit."]


def _oracle(found: Explanation) -> list[str]:
    oracle, policy = found.oracle, found.policy
    if oracle is None:
        return []
    timed = "" if oracle.mean_ms is None else f" in {q.milliseconds(oracle.mean_ms)} on average"
    gap = ""
    if policy and policy.point.mean_ms is not None and oracle.mean_ms is not None:
        gap = f"; the policy takes {policy.point.mean_ms / oracle.mean_ms:.2f} times that"
    best = f"{q.accuracy(oracle.accuracy)}{timed}{gap}"
    return [f"Leaving at the first right exit, which only an oracle can, gives {best}."]


def _scores(found: Explanation) -> list[str]:
    known = [f"{exit_.name} {exit_.auroc:.3f}" for exit_ in found.exits if exit_.auroc is not None]
    return [f"How well the score tells right answers from wrong ones (AUROC): {', '.join(known)}."] if known else []


def _risk(found: Explanation) -> list[str]:
    risk = found.risk
    if risk is None:
        return []
    step = risk.steps[min(risk.chosen, len(risk.steps) - 1)]
    where = f"step {risk.chosen} of the certificate's path, of which {risk.certified} are certified"
    figures = f"measured {step.loss * 100:.2f} %, bound {step.bound * 100:.2f} %"
    return [f"The policy is {where} for {risk.max_drop * 100:.4g} %: {figures}."]


def _export(exit_: str) -> str:
    return f"sdcompress export CHECKPOINT --layout single --exit {exit_} --out FOLDER"


def _less(saving: Interval) -> str:
    """How much less, or more, with the ends of the interval."""
    sign, word = (1, "less") if saving.value > 0 else (-1, "more")
    low, high = (q.milliseconds(end).removesuffix(" ms") for end in sorted((sign * saving.low, sign * saving.high)))
    return f"{q.milliseconds(abs(saving.value))} ({low} to {high}) {word}".replace("-", "−")


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
