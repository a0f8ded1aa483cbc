"""One graph computes for every row what a loop in numpy computes, in any batch and with any thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import UsageError
from sdcompress.modalities import Inputs
from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.onnx_graph.edit import Renaming, graphs_within, replace_nodes
from sdcompress.onnx_graph.merge import merge
from sdcompress.onnx_graph.partition import serialize
from sdcompress.policies import exit_index_of, restore, scores
from sdcompress.schema.graphs import DECISION, EXIT_INDEX
from sdcompress.schema.manifest import RegistryEntry
from sdcompress.tasks import task_of
from sdcompress.verification.sessions import SegmentSessions

Write = Callable[..., Path]
Outputs = dict[str, np.ndarray]

LEARNED = {"weights": [[0.1, 0.4, -0.2, 1.0, 0.5], [-0.5, 0.3, -0.1, 0.5, 1.5]]}


def opened(path: Path) -> tuple[Artifact, list[onnx.ModelProto]]:
    artifact = open_artifact(path)
    return artifact, [onnx.load(artifact.file(segment)) for segment in artifact.manifest.segments]


def joined(path: Path, thresholds: Sequence[float | None], *, batch_of_one: bool = False) -> onnx.ModelProto:
    artifact, segments = opened(path)
    return merge(artifact.manifest, segments, thresholds, batch_of_one=batch_of_one)


def runner(model: onnx.ModelProto) -> Callable[[np.ndarray], Outputs]:
    sessions = SegmentSessions([serialize(model)], outputs=[], threads=1)
    return lambda images: sessions.run(Inputs({"input": images}))


def score(kind: str, logits: np.ndarray, exit_: int, temperature: Sequence[float]) -> float:
    """The score of one image at an exit, from the logits of all exits [E, K], in float64 and by the book."""
    p = [np.exp(z / t - np.max(z / t)) for z, t in zip(logits.astype(np.float64), temperature, strict=True)]
    p = [q / q.sum() for q in p]
    second, best = np.sort(p[exit_])[-2:]
    entropy = -float(np.sum(p[exit_] * np.log(p[exit_])))
    if kind == "max_prob":
        return float(best)
    if kind == "margin":
        return float(best - second)
    if kind == "entropy":
        return float(np.exp(-entropy))
    same = float(exit_ == 0 or p[exit_].argmax() == p[exit_ - 1].argmax())
    inputs = [1, np.log(best / max(1 - best, 1e-6)), entropy, best - second, same]
    return float(1 / (1 + np.exp(-np.dot(LEARNED["weights"][exit_], inputs))))


@pytest.mark.parametrize("batch_of_one", [False, True])
def test_a_policy_that_looks_back_on_label_sets(tiny_artifact: Write, tiny_network: Any, batch_of_one: bool) -> None:
    artifact, segments = opened(tiny_artifact(policy=(0.5, 0.5), signals=False, kind="learned", parameters=LEARNED))
    manifest = artifact.manifest.model_copy(update={"task": RegistryEntry(name="multilabel")})
    x = np.random.default_rng(5).normal(size=(40, 1, 4, 4)).astype(np.float32)
    outputs, task = tiny_network.exits(x), task_of(manifest)
    score = scores(restore("learned", LEARNED, task, 3), [task.signals(each) for each in outputs])
    thresholds = [_between(row, at) for row, at in zip(score, (0.6, 0.4), strict=True)]
    run = runner(merge(manifest, segments, thresholds, batch_of_one=batch_of_one))
    found = [run(rows) for rows in (np.split(x, 40) if batch_of_one else [x[:3], x[3:]])]
    expected = exit_index_of(score, thresholds)
    assert set(expected) == {0, 1, 2}
    np.testing.assert_array_equal(np.concatenate([each[EXIT_INDEX] for each in found]), expected)
    decisions = np.concatenate([each[DECISION] for each in found])
    np.testing.assert_array_equal(decisions, task.decide(outputs)[expected, np.arange(40)])
    assert decisions.dtype == np.uint8


@pytest.mark.parametrize("kind", ["max_prob", "margin", "entropy", "learned"])
@pytest.mark.parametrize(
    ("temperatures", "signals"), [((1.0, 1.0, 1.0), True), ((1.0, 1.0, 1.0), False), ((1.7, 0.6, 1.0), True)]
)
def test_any_thresholds_and_batches_against_a_loop_over_images(
    tiny_artifact: Write, tiny_network: Any, kind: str, temperatures: Sequence[float], signals: bool
) -> None:
    fields = {"kind": kind, "parameters": LEARNED if kind == "learned" else {}}
    path = tiny_artifact(policy=(0.5, 0.5), temperatures=temperatures, signals=signals, **fields)
    x = np.random.default_rng(5).normal(size=(64, 1, 4, 4)).astype(np.float32)
    logits = tiny_network.exits(x)  # [3, 64, 3]
    scores = np.array([[score(kind, logits[:, row], k, temperatures) for row in range(64)] for k in range(2)])

    @settings(max_examples=15, deadline=None)
    @given(st.tuples(THRESHOLD, THRESHOLD), st.integers(0, 40), st.integers(1, 24))
    def holds(places: tuple[float | None, float | None], first: int, count: int) -> None:
        # between two scores, so that no rounding decides
        thresholds = [None if at is None else _between(scores[k], at) for k, at in enumerate(places)]
        rows = np.arange(first, first + count)
        least = np.array([np.inf if threshold is None else threshold for threshold in thresholds])
        fires = np.vstack([scores[:, rows] >= least[:, None], np.ones(count, bool)])
        left = fires.argmax(axis=0)
        outputs = runner(joined(path, thresholds))(x[rows])
        _same(outputs, logits[left, rows], left)
        alone = runner(joined(path, thresholds, batch_of_one=True))
        _same(alone(x[rows[:1]]), logits[left[:1], rows[:1]], left[:1])

    holds()


THRESHOLD = st.one_of(st.none(), st.floats(0, 1))


def _between(scores: np.ndarray, place: float) -> float:
    """A threshold in the wide gap nearest to a share of the scores; 0: all rows exit, 1: none."""
    ordered = np.sort(scores)
    if place in {0.0, 1.0}:
        return float(ordered[0] - 0.01 if place == 0 else ordered[-1] + 0.01)
    near = np.abs(np.arange(len(ordered) - 1) - place * (len(ordered) - 2))
    # scores crowd at 1, where float32 knows 1 - best to 6 % only, which the learned gate takes the logarithm of
    gap = int(np.where(np.diff(ordered) > 0.01, near, np.inf).argmin())
    return float((ordered[gap] + ordered[gap + 1]) / 2)


def _same(found: Outputs, logits: np.ndarray, left: np.ndarray) -> None:
    np.testing.assert_array_equal(found["exit_index"], left)
    np.testing.assert_allclose(found["outputs"], logits, atol=1e-5)
    np.testing.assert_array_equal(found["decision"], logits.argmax(1))
    assert [found[name].dtype for name in ("outputs", "decision", "exit_index")] == [np.float32, np.int64, np.int64]


@pytest.mark.parametrize("kind", ["max_prob", "entropy", "learned", "fixed"])
def test_what_is_not_a_number_runs_to_the_end(tiny_artifact: Write, kind: str) -> None:
    fields = {"kind": kind, "parameters": LEARNED if kind == "learned" else {}}
    run = runner(joined(tiny_artifact(policy=(0.0, 0.0), **fields), (0.0, 0.0)))
    x = np.zeros((3, 1, 4, 4), np.float32)
    x[1] = np.nan
    assert run(x)["exit_index"].tolist() == [0, 2, 0]


def test_a_score_on_the_threshold_exits(tiny_artifact: Write) -> None:
    path = tiny_artifact(policy=(1.0, 1.0), kind="fixed")
    assert runner(joined(path, (1.0, 1.0)))(np.zeros((2, 1, 4, 4), np.float32))["exit_index"].tolist() == [0, 0]
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    assert runner(joined(path, (above, 1.0)))(np.zeros((2, 1, 4, 4), np.float32))["exit_index"].tolist() == [1, 1]


def test_a_head_without_a_threshold_is_pruned(tiny_artifact: Write, tiny_network: Any) -> None:
    path = tiny_artifact(policy=(0.5, 0.5))
    operators = [[node.op_type for node in joined(path, rule).graph.node] for rule in ([None, None], [None, 0.5])]
    assert not {"If", "TopK", "NonZero"} & set(operators[0])
    assert operators[0].count("MatMul") == 5  # of 7: both heads are gone
    assert operators[1].count("If") == 1
    x = np.ones((4, 1, 4, 4), np.float32)
    outputs = runner(joined(path, [None, None]))(x)
    _same(outputs, tiny_network.exits(x)[2], np.full(4, 2))


@pytest.mark.parametrize(("kind", "computed"), [("margin", {"TopK"}), ("entropy", {"Neg"})])
@pytest.mark.parametrize("batch_of_one", [False, True])
def test_only_signals_that_the_policy_reads_are_computed(
    tiny_artifact: Write, kind: str, computed: set[str], batch_of_one: bool
) -> None:
    model = joined(tiny_artifact(policy=(0.5, 0.5), kind=kind), (0.5, 0.5), batch_of_one=batch_of_one)
    operators = {node.op_type for graph in graphs_within(model.graph) for node in graph.node}
    assert operators & {"Concat", "TopK", "Neg"} == computed


@pytest.mark.parametrize("batch_of_one", [False, True])
def test_codes_pass_from_segment_to_segment(tiny_artifact: Write, batch_of_one: bool) -> None:
    """Each tensor between segments is rounded where it is made and where it is read, to the same codes."""
    artifact, segments = opened(tiny_artifact(policy=(0.5, 0.5)))
    live = [[tensor.name for tensor in artifact.manifest.live_tensors(position)] for position in (0, 1)]
    borders = [next(name for name in names if name != "input") for names in live]
    for model, made, read in zip(segments, (*borders, None), (None, *borders), strict=True):
        _round(model.graph, made=made, read=read)
    merged = merge(artifact.manifest, segments, (0.5, 0.5), batch_of_one=batch_of_one)
    operators = [node.op_type for graph in graphs_within(merged.graph) for node in graph.node]
    assert (operators.count("QuantizeLinear"), operators.count("DequantizeLinear")) == (2, 2)
    x = np.random.default_rng(3).normal(size=(1, 1, 4, 4)).astype(np.float32)
    tensors = {"input": x}
    for segment in segments:
        names = [value.name for value in segment.graph.output]
        feeds = {value.name: tensors[value.name] for value in segment.graph.input}
        tensors |= dict(zip(names, cpu_session(segment.SerializeToString()).run(names, feeds), strict=True))
    outputs = runner(merged)(x)
    left = artifact.manifest.exits[outputs["exit_index"][0]]
    np.testing.assert_array_equal(outputs["outputs"], tensors[left.outputs])


@pytest.mark.parametrize("batch_of_one", [False, True])
def test_the_shapes_of_the_segments_stay_known(tiny_artifact: Write, batch_of_one: bool) -> None:
    """Each level has its own number of rows, and each segment its own names of sizes that are computed."""
    artifact, segments = opened(tiny_artifact(policy=(0.5, 0.5)))
    hidden, deep = (
        next(tensor.name for tensor in artifact.manifest.live_tensors(position) if tensor.name != "input")
        for position in (0, 1)
    )
    inner = segments[1].graph.node[0].output[0]
    computed = helper.make_tensor_value_info(inner, TensorProto.FLOAT, ["2*batch", 16])
    segments[1].graph.value_info.append(computed)
    merged = merge(artifact.manifest, segments, (0.5, 0.5), batch_of_one=batch_of_one)
    known = {}
    for graph in graphs_within(merged.graph):
        made = {name for node in graph.node for name in node.output}
        for value in graph.value_info:
            assert value.name in made
            sizes = value.type.tensor_type.shape.dim
            known[value.name] = [size.dim_param or size.dim_value or None for size in sizes]
    assert known[f"segment-0/{hidden}"] == [1 if batch_of_one else "exit-0/rows", 6]
    assert known[f"segment-1/{deep}"] == [1 if batch_of_one else "exit-1/rows", 8]
    assert known[f"segment-1/{inner}"] == ["segment-1/2*batch", 16]
    if not batch_of_one:  # what goes on to the next level
        gathered = {tuple(shape) for name, shape in known.items() if name.startswith("exit-0/stay/Gather")}
        assert ("exit-1/rows", 6) in gathered


def _round(graph: onnx.GraphProto, *, made: str | None, read: str | None) -> None:
    """Round an output and an input of a graph, in place: a QuantizeLinear and a DequantizeLinear for each."""
    nodes, names = list(graph.node), {made: f"{made}/exact", read: f"{read}/rounded"}
    for node in nodes:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    if read:
        nodes = [*_pair(read, f"{read}/rounded"), *nodes]
    if made:
        nodes += _pair(f"{made}/exact", made)
    constants = {"scale": np.float32(0.05), "zero": np.uint8(100)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    replace_nodes(graph, nodes)


def _pair(exact: str, rounded: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [exact, "scale", "zero"], [f"{rounded}/codes"]),
        helper.make_node("DequantizeLinear", [f"{rounded}/codes", "scale", "zero"], [rounded]),
    ]


def test_the_batch_is_fixed_only_where_it_must_be(tiny_artifact: Write) -> None:
    path = tiny_artifact(policy=(0.5, 0.5))
    axes = [
        [value.type.tensor_type.shape.dim[0] for value in (*model.graph.input, *model.graph.output)]
        for model in (joined(path, (0.5, 0.5)), joined(path, (0.5, 0.5), batch_of_one=True))
    ]
    assert {axis.dim_param for axis in axes[0]} == {"batch"}
    assert {axis.dim_value for axis in axes[1]} == {1}


def test_names_are_unique_and_the_same_artifact_gives_the_same_bytes(tiny_artifact: Write) -> None:
    path = tiny_artifact(policy=(0.5, 0.5), kind="learned", parameters=LEARNED)
    model = joined(path, (0.5, 0.5))
    names = list(_made(model.graph))
    assert len(names) == len(set(names))
    assert serialize(model) == serialize(joined(path, (0.5, 0.5)))


def _made(graph: onnx.GraphProto) -> Any:
    yield from (value.name for value in (*graph.initializer, *graph.input))
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _made(attribute.g)


@pytest.mark.parametrize("batch_of_one", [False, True])
def test_segments_of_opset_16_give_a_graph_of_opset_16_that_computes_the_same(
    tiny_artifact: Write, tiny_network: Any, batch_of_one: bool
) -> None:
    path = tiny_artifact(policy=(0.5, 0.5))
    artifact, segments = opened(path)
    for segment in segments:
        segment.opset_import[0].version, segment.ir_version = 16, 8
    older = merge(artifact.manifest, segments, (0.5, 0.5), batch_of_one=batch_of_one)
    assert (older.ir_version, [opset.version for opset in older.opset_import]) == (8, [16])
    images = np.random.default_rng(0).normal(size=(1 if batch_of_one else 7, *artifact.manifest.inputs[0].shape[1:]))
    actual, expected = (
        runner(model)(images.astype(np.float32))
        for model in (older, joined(path, (0.5, 0.5), batch_of_one=batch_of_one))
    )
    for name in ("outputs", "decision", "exit_index"):
        np.testing.assert_array_equal(actual[name], expected[name])


def test_segments_of_different_opsets_are_refused(tiny_artifact: Write) -> None:
    artifact, segments = opened(tiny_artifact(policy=(0.5, 0.5)))
    segments[1].opset_import[0].version = 19
    with pytest.raises(UsageError, match="different versions of ONNX's operators"):
        merge(artifact.manifest, segments, (0.5, 0.5), batch_of_one=False)


def test_names_inside_of_a_subgraph_are_renamed_too() -> None:
    """x > 0 ? x + c : x, with x from outside: a segment may hold control flow of its own."""
    value = helper.make_tensor_value_info

    def branch(node: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph([node], "branch", [], [value(node.output[0], TensorProto.FLOAT, [])])

    condition = helper.make_node(
        "If",
        ["more"],
        ["y"],
        then_branch=branch(helper.make_node("Add", ["x", "c"], ["sum"])),
        else_branch=branch(helper.make_node("Identity", ["x"], ["same"])),
    )
    renamed = Renaming("a", {"x": "input"}).node(condition)
    then = {attribute.name: attribute.g for attribute in renamed.attribute}["then_branch"]
    assert (list(renamed.input), list(renamed.output)) == (["a/more"], ["a/y"])
    assert (list(then.node[0].input), then.output[0].name) == (["input", "a/c"], "a/sum")
    assert condition.attribute[0].g.node[0].input[0] == "x"  # the original is left alone
