"""The program in the card that runs an artifact without sdcompress, from a raw example to the decision."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sdcompress.errors import UnknownNameError
from sdcompress.modalities import modality_of
from sdcompress.policies import policy_class
from sdcompress.schema.manifest import Exit, Manifest, Policy, Segment
from sdcompress.tasks import Task, task_of

__all__ = ["example"]

_IMPORTS = """
import sys

import numpy as np
import onnxruntime
"""

_PLAIN = """

session = onnxruntime.InferenceSession({file!r})


def predict(inputs):
    \"\"\"What the network decides.\"\"\"
    return decide(session.run([{outputs!r}], inputs)[0][0])
"""

_CASCADE = """

segments = {segments}
exits = {exits}  # segment, outputs, temperature, threshold
sessions = [onnxruntime.InferenceSession(file) for file in segments]


def score(*, {names}):
    return {formula}  # {rule}


def predict(inputs):
    \"\"\"What the network decides, and the number of the exit where the sample left.\"\"\"
    tensors, done = dict(inputs), 0
    for number, (segment, outputs, temperature, threshold) in enumerate(exits):
        for session in sessions[done : segment + 1]:
            names = [tensor.name for tensor in session.get_outputs()]
            feed = {{tensor.name: tensors[tensor.name] for tensor in session.get_inputs()}}
            tensors.update(zip(names, session.run(names, feed)))
        done = segment + 1
        sample = tensors[outputs][0]
        if number == len(exits) - 1 or score(**signals(sample, temperature)) >= np.float32(threshold):
            return decide(sample), number
"""

_ONE_GRAPH = """

session = onnxruntime.InferenceSession({file!r})  # onnxruntime 1.20 or newer


def predict(inputs):
    \"\"\"What the network decides, and the number of the exit where the sample left.\"\"\"
    outputs, decision, exit_index = session.run({names}, inputs)
    return decision[0].tolist(), int(exit_index[0])
"""

_MAIN = """

for given in sys.argv[1:]:
    print(given, predict(inputs_of(given)))
"""

_NEVER = 2.0  # a score is at most 1


def example(manifest: Manifest) -> str:
    """Return the program as Python source; empty if its modality or its task cannot be written without sdcompress.

    It needs onnxruntime and what the modality's part imports. It runs in the folder of the artifact and takes what the
    modality's ``card_argument`` says, such as paths of files.
    """
    one_graph, segments, exits, task = manifest.one_graph, manifest.segments, manifest.exits, task_of(manifest)
    preparation, meaning = modality_of(manifest).card_code(), task.card_code()
    if not preparation or not meaning:
        return ""
    if one_graph is not None:
        names = [tensor.name for tensor in one_graph.outputs]
        run = _ONE_GRAPH.format(file=one_graph.file, names=names)
    elif len(segments) == 1:
        run = meaning + _PLAIN.format(file=segments[0].file, outputs=exits[-1].outputs)
    else:
        run = meaning + _cascade(segments, exits, manifest.policy, task)
    return _IMPORTS + preparation + run + _MAIN


def _cascade(segments: Sequence[Segment], exits: Sequence[Exit], policy: Policy | None, task: Task) -> str:
    formula, rule = "0.0", "no policy: no score reaches 2"
    thresholds = [_NEVER] * (len(exits) - 1)
    if policy is not None and (policy_formula := _formula(policy.name, task)):
        formula, rule = policy_formula, f"the policy {policy.name}"
        # as engines do: rounded to float32, one just above 1 could be reached
        thresholds = [threshold if threshold <= 1 else _NEVER for threshold in policy.thresholds]
    elif policy is not None:
        rule = f"the policy {policy.name!r}, which needs more than this, see docs/policies.md: no score reaches 2"
    rows = [
        [exit_.segment, exit_.outputs, exit_.temperature, threshold]
        for exit_, threshold in zip(exits, [*thresholds, 0.0], strict=True)
    ]
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    return _CASCADE.format(
        segments=json.dumps([segment.file for segment in segments]),
        exits=f"[\n{lines},\n]",
        names=", ".join(task.signal_names),
        formula=formula,
        rule=rule,
    )


def _formula(kind: str, task: Task) -> str:
    """The policy's score as an expression of the task's signals; empty: it is not known, or needs more."""
    try:
        policy = policy_class(kind)
    except UnknownNameError:
        return ""  # the policy belongs to a package that is not installed here
    return "" if task.missing(policy.needs) else policy.formula
