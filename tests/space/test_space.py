"""Spaces load and dump exactly; points are drawn with their configurations, and counted."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopeft.core.catalog import names
from autopeft.core.config import PeftConfig
from autopeft.core.errors import SpaceError
from autopeft.core.methods import Adapter, BitFit, Lora, Prefix
from autopeft.core.shape import LayerShape, Linear, Shape
from autopeft.method.count import trained_elements
from autopeft.search.candidates import everything
from autopeft.space import Layers, SearchSpace, choice, real, subset
from tests.shapes import MINILM

SPACES = names("search_spaces")
METHODS = ["lora", "adapter", "prefix", "bitfit"]
FIXED = ["lora", "dora", "vera", "ia3", "norm", "bitfit", "prefix"]
FIXED += ["houlsby", "pfeiffer", "parallel", "mam", "propetl", "sparse-adapter", "s4-model"]
FIXED += [
    "adamix",
    "compacter",
    "hadamard",
    "pafi",
    "ssf",
    "qlora",
    "p-tuning",
    "prompt",
    "lst",
    "unipelt",
]
FIXED += ["apt", "tiny-attention"]


SIZES = st.lists(st.sampled_from([0, 2, 4, 8]), min_size=1, max_size=3, unique=True)
SCOPES = st.sampled_from([None, "space", "group", "layer"])


@st.composite
def domains(draw, values):
    scope = draw(SCOPES)
    return {"choice": values, **({"per": scope} if scope else {})}


@st.composite
def wheres(draw, n_groups):
    names = [f"g{i + 1}" for i in range(n_groups)]
    return draw(
        st.sampled_from(
            [
                "all",
                {"subset": "groups"},
                names[:1],
                {"first": {"choice": [1, 3]}},
                {"last": 2},
                {"choice": [names[-1:], "all"]},
                [0, "-1"],
            ]
        )
    )


@st.composite
def entries(draw, n_groups):
    kind = draw(st.sampled_from(["lora", "adapter", "bitfit", "either"]))
    where = draw(wheres(n_groups))
    if kind == "bitfit":
        return {"method": "bitfit", "where": where}
    if kind == "adapter":
        return {"method": "adapter", "size": draw(domains(draw(SIZES))), "where": where}
    lora = {"method": "lora", "r": draw(domains(draw(SIZES)))}
    if draw(st.booleans()):
        lora["targets"] = {"subset": ["q", "v"]}
    if kind == "lora":
        return {**lora, "where": where}
    return {"choice": [lora, [{"method": "bitfit"}, {"method": "prefix", "length": 3}], None]}


@st.composite
def spaces(draw):
    n_groups = draw(st.integers(1, 3))
    patterns = draw(
        st.lists(
            st.sampled_from(["uniform", "increasing", "decreasing", "bottleneck"]),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    return SearchSpace(
        layers={
            "groups": n_groups,
            "pattern": {"choice": patterns},
            "tuned": draw(st.sampled_from(["all", {"subset": "groups"}])),
        },
        place=draw(st.lists(entries(n_groups), min_size=1, max_size=2)),
        train=draw(st.sampled_from([{}, {"batch_size": {"choice": [8, 16]}}])),
    )


def check_points(bound, seed):
    """A drawn point and its neighbours stand for their configurations, in every decision."""
    rng = np.random.default_rng(seed)
    drawn = bound.draw(rng)
    near = bound.near(drawn, rng, 3)
    assert drawn.config not in {each.config for each in near}
    assert len({each.config for each in near}) == len(near)
    for each in (drawn, *near):
        assert each.point.keys() <= bound.dimensions.keys()
        idle = {name: d.sample(rng) for name, d in bound.dimensions.items()}
        assert bound.at({**idle, **each.point}) == each
        for name, value in each.point.items():
            dimension = bound.dimensions[name]
            assert dimension.from_unit(dimension.to_unit(value)) == pytest.approx(value)
    return drawn.config


def test_some_neighbours_change_all_groups_alike():
    bound, rng = SearchSpace.load("layer-mix").on(6), np.random.default_rng(0)
    sizes = {f"0.lora.r@g{group}": 4 for group in (1, 2, 3, 4)}
    drawn = bound.at({**bound.draw(rng).point, **sizes})
    near = [tuple(n.point.get(name) for name in sizes) for n in bound.near(drawn, rng, 300)]
    assert (0, 0, 0, 0) in near
    assert {(1,) * 4, (16,) * 4} & {*near}
    assert {(4, 4, 4, 1), (4, 4, 4, 16)} & {*near}


@settings(suppress_health_check=list(HealthCheck))
@given(spaces(), st.integers(0, 2**32 - 1))
def test_points_travel_with_their_configurations(space, seed):
    bound = space.on(4)
    check_points(bound, seed)


@st.composite
def budgeted(draw):
    """Spaces some of whose sizes follow a budget, on a backbone without biases."""
    size = {"choice": draw(st.permutations(["fill", 0, 2]))[: draw(st.integers(1, 3))]}
    if draw(st.booleans()):
        size = {**size, "per": draw(st.sampled_from(["space", "group", "layer"]))}
    entry = draw(
        st.sampled_from(
            [
                {"method": "prefix", "length": size},
                {"method": "lora", "r": size, "targets": {"subset": ["q", "v"]}},
                {"method": "lora", "r": size, "where": {"subset": "groups"}},
            ]
        )
    )
    amounts = ["2%", 500, {"choice": [300, {"int": [500, 900], "step": 200}]}]
    place = [entry, {"method": "lora", "r": "fill", "targets": ["v"]}, *draw(st.lists(entries(2)))]
    return SearchSpace(
        layers={
            "groups": 2,
            "pattern": {"choice": ["uniform", "increasing"]},
            "tuned": draw(st.sampled_from(["all", {"subset": "groups"}])),
        },
        place=place[:3],
        budget={
            "trainable_params": draw(st.sampled_from(amounts)),
            "allocation": {"choice": ["uniform", "decreasing"]},
        },
    )


LINEARS = tuple(Linear(f"self.{role}", 8, 8, False) for role in "qkvo")
BARE = Shape(tuple(LayerShape("", 8, LINEARS, ()) for _ in range(4)), 10_000)


@settings(suppress_health_check=list(HealthCheck))
@given(st.one_of(spaces(), budgeted()), st.integers(0, 2**32 - 1))
def test_points_travel_on_a_backbone_without_biases(space, seed):
    config = check_points(space.on(BARE, trained_elements), seed)
    assert not any(p.method == "bitfit" for p in config.placements)


def test_a_point_that_lacks_a_decision_is_refused():
    bound = SearchSpace.load("layer-mix").on(6)
    point = {**bound.draw(np.random.default_rng(0)).point}
    del point["train.batch_size"]
    with pytest.raises(SpaceError, match=r"layer-mix: the point does not say train\.batch_size"):
        bound.at(point)


@settings(suppress_health_check=list(HealthCheck))
@given(spaces())
def test_load_dump_load_is_the_identity(space):
    assert SearchSpace.load(space.to_dict()) == space
    assert SearchSpace.load(SearchSpace.load(space.to_dict()).to_dict()) == space


@pytest.mark.parametrize("name", SPACES)
def test_catalog_loads_and_dumps(name):
    space = SearchSpace.load(name)
    assert SearchSpace.load(space.to_dict()) == space
    assert space.is_configuration == (name in [*FIXED, "head-only"])
    bound = space.on(MINILM, trained_elements)
    for seed in range(5):
        config = check_points(bound, seed)
        assert PeftConfig.from_dict(config.to_dict()) == config
        assert SearchSpace.load(config.to_dict()).on(MINILM, trained_elements).resolve({}) == config


def test_published_size_of_autopeft():
    assert SearchSpace.load("autopeft").on(12).assignments == 5_451_776


def test_assignments_are_the_product_of_the_domains():
    bound = SearchSpace.load("layer-mix").on(6)
    assert bound.assignments == (4 * 4 * 3 * 2) ** 4 * 4 * 2 * 3 * 2
    assert bound.assignments == math.prod(len(d.values or (0,)) for d in bound.dimensions.values())
    rates = [f"{i}.{method}.learning_rate" for i, method in enumerate(METHODS)]
    assert bound.continuous == [*rates, "train.learning_rate"]


def test_sketches_leave_out_whole_methods_and_share_sizes():
    bound = SearchSpace.load("layer-mix").on(6)
    rng = np.random.default_rng(0)
    sketches = [bound.sketch(rng).config for _ in range(200)]
    drawn = [bound.draw(rng).config for _ in range(200)]
    for few, many in (
        (_mean(_n_methods, sketches), _mean(_n_methods, drawn)),
        (_mean(_n_sizes, sketches), _mean(_n_sizes, drawn)),
    ):
        assert few < 0.65 * many
    assert len({config.key for config in sketches}) > 190
    points = [bound.sketch(rng) for _ in range(20)]
    assert all(bound.at(drawn.point) == drawn for drawn in points)


def _n_methods(config: PeftConfig) -> int:
    return len({p.method for p in config.placements})


def _n_sizes(config: PeftConfig) -> int:
    return len(config.placements)


def _mean(quantity, configs) -> float:
    return float(np.mean([quantity(config) for config in configs]))


def test_sizes_of_fill_stay_within_the_budget():
    space = SearchSpace.load(
        {
            "layers": {"groups": 2, "pattern": {"choice": ["uniform", "increasing"]}},
            "budget": {
                "trainable_params": 1000,
                "allocation": {"choice": ["uniform", "increasing"]},
            },
            "place": [
                {"method": "lora", "r": "fill", "where": {"subset": "groups"}},
                {"method": "prefix", "length": "fill", "where": {"subset": "groups"}},
            ],
        }
    )

    def cost(method, options, layer):
        return 10 * options["r"] if method == "lora" else 6 * options["length"]

    shape = Shape(tuple(LayerShape("", 1, (), ()) for _ in range(5)), 10_000)
    for drawn in everything(space.on(shape, cost)):
        placements = drawn.config.placements
        assert (
            sum(cost(p.method, dict(p.options), None) * len(p.layers) for p in placements) <= 1000
        )


def test_python_and_yaml_are_one_language():
    python = SearchSpace(
        layers=Layers(4, pattern=choice("uniform", "spindle"), tuned=subset()),
        place=[
            Lora(r=choice(0, 4, 8), targets=choice(["q", "v"], ["q", "k", "v", "o"])),
            Adapter(size=choice(0, 8, per="space")),
            Prefix(length=4, where={"last": 2}),
            BitFit(where=subset()),
        ],
        train={"learning_rate": real(1e-4, 1e-2, log=True)},
    )
    document = {
        "layers": {
            "groups": 4,
            "pattern": {"choice": ["uniform", "spindle"]},
            "tuned": {"subset": "groups"},
        },
        "place": [
            {
                "method": "lora",
                "r": {"choice": [0, 4, 8]},
                "targets": {"choice": [["q", "v"], ["q", "k", "v", "o"]]},
            },
            {"method": "adapter", "size": {"choice": [0, 8], "per": "space"}},
            {"method": "prefix", "length": 4, "where": {"last": 2}},
            {"method": "bitfit", "where": {"subset": "groups"}},
        ],
        "train": {"learning_rate": {"float": [1e-4, 1e-2], "log": True}},
    }
    assert SearchSpace.load(document) == python


def test_equal_architectures_are_equal_values():
    def config(*place):
        return SearchSpace(place=list(place)).on(4).resolve({})

    lora = {"method": "lora", "r": 8}
    assert config({**lora, "targets": ["v", "q"]}) == config(lora)
    assert config(lora, {"method": "adapter", "size": 0}) == config(lora)
    assert config({**lora, "where": "0-1"}, {**lora, "where": [2, -1]}) == config(lora)
    assert config({**lora, "where": {"first": 0}}) == config()
    assert config(lora, lora) != config(lora)
    assert config(lora).key == config({**lora, "targets": ["v", "q"]}).key
    assert config({**lora, "r": 4}).key != config(lora).key


def test_numbers_name_groups_where_groups_are_called_so():
    each = SearchSpace(layers=Layers("each", tuned=[0, 2]), place=[Lora()]).on(4)
    assert each.resolve({}).layers == (0, 2)
    named = SearchSpace(layers=Layers({1: "0-1", 2: "2-3"}), place=[Lora(where=[1])]).on(4)
    assert named.resolve({}).layers == (0, 1)


def test_large_domains_count_quickly():
    bound = SearchSpace(
        layers=Layers(4, pattern=choice("uniform", "spindle")),
        place=[
            {"method": "lora", "r": {"int": [0, 99_999]}},
            {"method": "adapter", "size": {"choice": list(range(20_000))}},
        ],
        train={"batch_size": {"int": [1, 500]}, "warmup_ratio": {"float": [0, 0.9], "step": 0.001}},
    ).on(12)
    assert bound.assignments == 2 * (100_000 * 20_000) ** 4 * 500 * 901
    check_points(bound, 0)


def test_a_group_may_be_called_like_a_layer():
    bound = SearchSpace(
        layers=Layers({"layer0": "0-1", "b": "2-3"}), place=[Lora(r=choice(0, 4))]
    ).on(4)
    assert bound.assignments == len(everything(bound)) == 4
