"""The program in the card that runs an artifact without sdcompress, from an image file to its class."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sdcompress.errors import UnknownNameError
from sdcompress.modalities import Modality
from sdcompress.policies import policy_class
from sdcompress.schema.manifest import Exit, OneGraph, Policy, Segment

__all__ = ["example"]

_IMPORTS = """
import sys

import numpy as np
import onnxruntime
"""

_PLAIN = """

session = onnxruntime.InferenceSession({file!r})


def predict(inputs):
    \"\"\"The number of the class.\"\"\"
    logits = session.run([{logits!r}], inputs)[0]
    return int(logits[0].argmax())
"""

_CASCADE = """

segments = {segments}
exits = {exits}  # segment, logits, temperature, threshold
sessions = [onnxruntime.InferenceSession(file) for file in segments]


def predict(inputs):
    \"\"\"The number of the class, and that of the exit where the sample left.\"\"\"
    tensors, done = dict(inputs), 0
    for number, (segment, logits, temperature, threshold) in enumerate(exits):
        for session in sessions[done : segment + 1]:
            names = [tensor.name for tensor in session.get_outputs()]
            feed = {{tensor.name: tensors[tensor.name] for tensor in session.get_inputs()}}
            tensors.update(zip(names, session.run(names, feed)))
        done = segment + 1
        z = tensors[logits][0] / np.float32(temperature)
        p = np.exp(z - z.max())
        p /= p.sum()
        score = {formula}
        if number == len(exits) - 1 or score >= np.float32(threshold):  # {rule}
            return int(z.argmax()), number
"""

_ONE_GRAPH = """

session = onnxruntime.InferenceSession({file!r})  # onnxruntime 1.20 or newer


def predict(inputs):
    \"\"\"The number of the class, and that of the exit where the sample left.\"\"\"
    logits, answer, exit_index = session.run({names}, inputs)
    return int(answer[0]), int(exit_index[0])
"""

_MAIN = """

for path in sys.argv[1:]:
    print(path, predict(inputs_of(path)))
"""

_NEVER = 2.0  # a score is at most 1


def example(
    *,
    modality: Modality,
    segments: Sequence[Segment],
    exits: Sequence[Exit],
    policy: Policy | None = None,
    one_graph: OneGraph | None = None,
) -> str:
    """Return the program as Python source; the arguments are the modality and fields of the manifest.

    It needs onnxruntime and what the modality's part imports. It runs in the folder of the artifact and takes paths of
    files that are raw examples.
    """
    if one_graph is not None:
        names = [tensor.name for tensor in one_graph.outputs]
        run = _ONE_GRAPH.format(file=one_graph.file, names=names)
    elif len(segments) == 1:
        run = _PLAIN.format(file=segments[0].file, logits=exits[-1].logits)
    else:
        run = _cascade(segments, exits, policy)
    return _IMPORTS + modality.card_code() + run + _MAIN


def _cascade(segments: Sequence[Segment], exits: Sequence[Exit], policy: Policy | None) -> str:
    formula, rule = "p.max()", "not calibrated: no score reaches 2"
    thresholds = [_NEVER] * (len(exits) - 1)
    if policy is not None and (policy_formula := _formula(policy.kind)):
        formula, rule, thresholds = (
            policy_formula,
            f"the policy {policy.kind}",
            [min(t, _NEVER) for t in policy.thresholds],
        )
    elif policy is not None:
        rule = f"no score reaches 2: the policy {policy.kind!r} needs more than p, see docs/policies.md of sdcompress"
    rows = [
        [exit_.segment, exit_.logits, exit_.temperature, threshold]
        for exit_, threshold in zip(exits, [*thresholds, 0.0], strict=True)
    ]
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    return _CASCADE.format(
        segments=json.dumps([segment.file for segment in segments]),
        exits=f"[\n{lines},\n]",
        formula=formula,
        rule=rule,
    )


def _formula(kind: str) -> str:
    try:
        return policy_class(kind).formula
    except UnknownNameError:
        return ""  # the policy belongs to a package that is not installed here
