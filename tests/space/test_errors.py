"""Bad input gets one clear line: file, key, what was expected, what came, the nearest name."""

import pytest

from autopeft.core.errors import AutoPeftError, SpaceError
from autopeft.core.shape import LayerShape, Shape
from autopeft.space import SearchSpace

LORA = {"method": "lora", "r": 8}
ADAPTER = {"method": "adapter", "size": 8}


def document(**change):
    return {"name": "bad", "place": [LORA], **change}


CASES = [
    (
        document(place=[{"method": "lorra"}]),
        "bad: place[0].method: unknown method 'lorra'",
        "(did you mean 'lora'?)",
    ),
    (document(plce=[]), "bad: unknown key 'plce'", "(did you mean 'place'?)"),
    (
        document(place=[LORA, {"method": "lora", "r": "eight"}]),
        "place[1].r: must be a positive integer up to 1000000, 0 (absent) or fill, got 'eight'",
        "",
    ),
    (
        document(place=[{"method": "lora", "rank": 8}]),
        "bad: place[0]: unknown option of lora 'rank'",
        "",
    ),
    (document(place=[{**LORA, "r": -2}]), "bad: place[0].r: must be a positive integer", ""),
    (document(place=[{**LORA, "r": {"int": [8, 4]}}]), "the range [8, 4] is empty", ""),
    (document(place=[{**LORA, "r": {"choice": []}}]), "place[0].r.choice: expected a list", ""),
    (document(place=[{**LORA, "r": {"chioce": [1]}}]), "unknown domain 'chioce'", "'choice'"),
    (document(place=[{**LORA, "r": {"choice": [4, 4]}}]), "4 stands twice", ""),
    (document(place=[{**LORA, "r": {"choice": [4], "per": "grp"}}]), "'grp'", "'group'"),
    (document(place=[{**LORA, "targets": ["q", "w"]}]), "place[0].targets: unknown site 'w'", ""),
    (document(place=[{"method": "adapter"}]), "adapter needs size", ""),
    (document(place=[{**ADAPTER, "at": "fn"}]), "place[0].at: unknown value 'fn'", "'ffn'"),
    (document(place=[{**ADAPTER, "bias": 1}]), "bias: must be true or false, got 1", ""),
    (document(place=[{**LORA, "targets": []}]), "must be a list of sites, got []", ""),
    (document(layers={"groups": 4, "patern": "uniform"}), "layers: unknown key 'patern'", ""),
    (document(layers={"groups": 4, "pattern": "spindel"}), "'spindel'", "'spindle'"),
    (document(layers={"groups": 0}), "layers.groups: expected a number", ""),
    (document(train={"lr": 1e-3}), "train: unknown setting 'lr'", ""),
    (
        document(train={"learning_rate": -1.0}),
        "train.learning_rate: should be greater than 0, got -1.0",
        "",
    ),
    (
        document(backbone={"quantization": "nf3"}),
        "quantization: unknown quantization 'nf3'",
        "'nf4'",
    ),
    (document(limits={"trainable_params": "lots"}), "limits.trainable_params", ""),
    (document(place={"method": "lora"}), "place: expected a list of placements", ""),
    (
        document(train={"batch_size": {"choice": [8, 16], "per": "group"}}),
        "train.batch_size: is decided once for the space",
        "",
    ),
    (
        document(place=[{**LORA, "where": {"first": {"int": [1, 2], "per": "layer"}}}]),
        "place[0].where.first: is decided once for the space",
        "",
    ),
    (
        document(layers={"groups": "each", "pattern": "spindle"}),
        "layers.pattern: a pattern needs a number of groups",
        "",
    ),
    (document(description=["x"]), "description: must be text", ""),
]


@pytest.mark.parametrize(("raw", "says", "hint"), CASES)
def test_one_clear_line(raw, says, hint):
    with pytest.raises(SpaceError) as caught:
        SearchSpace.load(raw)
    message = str(caught.value)
    assert says in message
    assert hint in message
    assert "\n" not in message


HUGE = 10**400
ITSELF: list = [{"choice": ["none"]}]
ITSELF[0]["choice"] = ITSELF
SITES: list = ["q"]
SITES.append(SITES)


def rate(low, high, **more):
    return document(train={"learning_rate": {"float": [low, high], **more}})


def lora(**options):
    return document(place=[{"method": "lora", **options}])


EXTREMES = [
    (rate(1e-3, float("inf")), "train.learning_rate.float: expected [low, high], got [0.001, inf]"),
    (rate(1e-3, HUGE), "train.learning_rate.float: expected [low, high], got [0.001, 1000000"),
    (rate(1e-3, 1.0, step=float("nan")), "step: must be a positive number, got nan"),
    (rate(1e-3, 1.0, step=float("inf")), "step: must be a positive number, got inf"),
    (rate(1e-3, 1.0, step=1e-9), "more than 100000 values; a larger step makes fewer"),
    (document(train={"learning_rate": float("inf")}), "should be a finite number, got inf"),
    (document(train={"learning_rate": HUGE}), "learning_rate: should be a valid number, got 1000"),
    (document(train={"batch_size": 10**18}), "should be less than or equal to 1048576, got 1000"),
    (document(train={"batch_size": {"int": [1, 10**30]}}), "batch_size: more than 100000 values"),
    (document(train={5: 1}), "train: unknown setting '5'"),
    (lora(r=10**18), "place[0].r: must be a positive integer up to 1000000"),
    (lora(r={"int": [1, 10**30], "step": 10**28}), "r.int[1]: must be a positive integer up to"),
    (lora(r="x" * 10**6), "(1000002 characters)"),
    (lora(lora_alpha=HUGE), "lora_alpha: must be a finite number above 0, or null for 2r, got 10"),
    (lora(targets=SITES), "targets: must be a list of sites, got ['q', ['q', [...]]]"),
    (lora(where={"first": {"int": [0, 10**9]}}), "where.first: more than 100000 values"),
    (lora(where=[10**5000]), "where: expected names of groups or layers, got an integer of thou"),
    (lora(**{"r": {"choice": [1], "5": 1}}), "place[0].r: unknown key '5'"),
    (document(place=[{**LORA, 5: 1}]), "place[0]: unknown option of lora '5'"),
    (document(place=[{**LORA, None: 1}]), "place[0]: unknown option of lora 'None'"),
    ({5: 1, "place": [LORA]}, "unknown key '5'"),
    (document(place=ITSELF), "more than 20 choices in each other"),
    (document(place="x" * 10**6), "place: expected a list of placements, got 'xxx"),
    (document(budget={"trainable_params": HUGE}), "expected a positive amount such as"),
]


@pytest.mark.parametrize(("raw", "says"), EXTREMES, ids=[says for _, says in EXTREMES])
def test_what_is_out_of_all_bounds(raw, says):
    with pytest.raises(SpaceError) as caught:
        SearchSpace.load(raw)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 600


BOUND = [
    (document(layers={"groups": 9}), "9 groups do not fit 6 layers"),
    (
        document(layers={"groups": {"low": "0-2", "high": "2-5"}}),
        "layer 2 stands in low and in high",
    ),
    (document(layers={"groups": {"low": "0-9"}}), "layer 9 of '0-9' is not among the 6 layers"),
    (
        document(layers={"groups": 2}, place=[{**LORA, "where": ["g3"]}]),
        "place[0].where: unknown group 'g3'; known: g1, g2",
    ),
    (document(place=[{**LORA, "where": "decoder"}]), "no separate decoder"),
    (
        document(layers={"groups": {"low": "0-1"}}, place=[{**LORA, "where": 3}]),
        "place[0].where: covers no layer of any group",
    ),
    (
        document(place=[{**LORA, "where": {"choice": [{"choice": ["0-1", "7"]}, "all"]}}]),
        "place[0].where: layer 7 of '7' is not among the 6 layers",
    ),
    (document(place=[{**LORA, "r": "fill"}]), "budget.trainable_params"),
    (document(layers={"groups": 10**9}), "layers.groups: 1000000000 groups do not fit 6 layers"),
    (document(place=[{**LORA, "where": ["9" * 5000]}]), "place[0].where: unknown group '999"),
    (document(budget={"trainable_params": "1%"}), "no size is fill"),
]


@pytest.mark.parametrize(("raw", "says"), BOUND)
def test_what_a_backbone_cannot_meet(raw, says):
    space = SearchSpace.load(raw)
    with pytest.raises(SpaceError) as caught:
        space.on(6)
    assert says in str(caught.value)


def test_a_budget_beyond_all_sizes():
    shape = Shape((LayerShape("", 8, (), ()),), 1000)
    place, budget = [{**LORA, "r": "fill"}], {"trainable_params": 1e300}
    space = SearchSpace(place=place, budget=budget).on(
        shape, lambda method, options, _: options["r"]
    )
    with pytest.raises(SpaceError, match="makes r of lora more than 1000000"):
        space.resolve({})


def test_files(tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    twice = tmp_path / "twice.yaml"
    twice.write_text("place: []\nplace: []\n")
    broken = tmp_path / "broken.yaml"
    broken.write_text("place: [")
    for path, says in [
        (empty, "the file is empty"),
        (twice, "stands twice"),
        (broken, "broken.yaml"),
        (tmp_path / "no.yaml", "no such file"),
    ]:
        with pytest.raises(AutoPeftError) as caught:
            SearchSpace.load(path)
        assert says in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(AutoPeftError, match=r"unknown space 'layer-mx'.*did you mean 'layer-mix'"):
        SearchSpace.load("layer-mx")


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    path = tmp_path / "exponent.yaml"
    path.write_text("place: []\ntrain: {learning_rate: 1e-3}\n")
    assert dict(SearchSpace.load(path).on(2).resolve({}).train) == {"learning_rate": 1e-3}
