"""Names and orders of tensors, matched; every case is worked out by hand or drawn at random."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sdcompress.models.weights.match import match_names, match_order

NET = {"conv.weight": (8, 3, 3, 3), "bn.weight": (8,), "bn.bias": (8,), "fc.weight": (10, 8), "fc.bias": (10,)}
PART = st.text("abcdef_0123456789", min_size=1, max_size=4)
NAMES = st.lists(st.lists(PART, min_size=2, max_size=4).map(".".join), min_size=3, max_size=20, unique=True)
SHAPE = st.lists(st.integers(1, 5), max_size=3).map(tuple)
PREFIX = st.sampled_from(["module.", "model.", "backbone.", "module.model.", "_orig_mod.", "net.encoder."])


def test_equal_names_need_no_prefix() -> None:
    found = match_names(NET, NET)
    assert found.pairs == {name: name for name in NET}
    assert found.prefixes == ("", "")


def test_another_classifier_is_found_and_not_taken() -> None:
    found = match_names({**NET, "fc.weight": (1000, 8), "fc.bias": (1000,)}, NET)
    assert set(found.pairs) == {"conv.weight", "bn.weight", "bn.bias"}
    assert found.other_shape == {"fc.weight": "fc.weight", "fc.bias": "fc.bias"}


def test_a_prefix_of_some_names_only_is_stripped_where_it_is() -> None:
    file = {(name if name.startswith("fc") else f"backbone.{name}"): shape for name, shape in NET.items()}
    assert match_names(file, NET).pairs == {
        name: (name if name.startswith("fc") else f"backbone.{name}") for name in NET
    }


def test_of_two_networks_in_one_file_the_first_is_taken() -> None:
    file = {f"{who}.{name}": shape for who in ("student", "teacher") for name, shape in NET.items()}
    assert match_names(file, NET).prefixes == ("student.", "")


@settings(max_examples=100, deadline=None)
@given(st.data(), NAMES, PREFIX, PREFIX)
def test_prefixes_on_either_side_lose_nothing(data: st.DataObject, names: list[str], one: str, other: str) -> None:
    shapes = {name: data.draw(SHAPE) for name in names}
    of_file = {one + name: shape for name, shape in shapes.items()}
    of_network = {other + name: shape for name, shape in shapes.items()}
    assert len(match_names(of_file, shapes).pairs) == len(names)
    assert len(match_names(shapes, of_network).pairs) == len(names)
    both = match_names(of_file, of_network)
    assert len(both.pairs) == len(names)
    assert all(of_network[name] == of_file[source] for name, source in both.pairs.items())


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(PART, SHAPE, max_size=12), st.dictionaries(PART, SHAPE, max_size=12))
def test_what_is_paired_has_one_shape_and_no_source_twice(
    file: dict[str, tuple[int, ...]], network: dict[str, tuple[int, ...]]
) -> None:
    found = match_names(file, network)
    assert all(file[source] == network[name] for name, source in found.pairs.items())
    assert len(set(found.pairs.values())) == len(found.pairs)
    assert not set(found.pairs) & set(found.other_shape)


@settings(max_examples=50, deadline=None)
@given(st.lists(SHAPE, min_size=3, max_size=12), st.integers(0, 2))
def test_order_pairs_the_same_shapes_whatever_the_names(shapes: list[tuple[int, ...]], last: int) -> None:
    network = {f"n{at}": shape for at, shape in enumerate(shapes)}
    output = list(network)[len(network) - last :]
    file = {f"f{at}": shape for at, shape in enumerate(shapes)}
    whole = match_order(file, network, output)
    assert whole is not None
    assert whole.pairs == {f"n{at}": f"f{at}" for at in range(len(shapes))}
    body = dict(list(file.items())[: len(file) - last])
    without = match_order(body, network, output)
    assert without is not None
    assert len(without.pairs) == len(shapes) - last
    resized = {name: ((*shape, 7) if f"n{name[1:]}" in output else shape) for name, shape in file.items()}
    other = match_order(resized, network, output)
    assert other is not None
    assert list(other.other_shape) == output


def test_an_order_that_does_not_fit_is_no_match() -> None:
    names = list(NET)
    assert match_order({name: NET[name] for name in reversed(names)}, NET, ["fc.weight", "fc.bias"]) is None
    assert match_order({name: NET[name] for name in names[1:]}, NET, ["fc.weight", "fc.bias"]) is None
