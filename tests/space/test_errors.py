"""Bad input gets one clear line: file, key, what was expected, what came, the nearest name."""

import pytest

from autopeft.core.errors import AutoPeftError, SpaceError
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
        "train.learning_rate: input should be greater than 0, got -1.0",
        "",
    ),
    (document(backbone={"quantization": "nf3"}), "backbone.quantization: input should be", ""),
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
    (document(budget={"trainable_params": "1%"}), "no size is fill"),
]


@pytest.mark.parametrize(("raw", "says"), BOUND)
def test_what_a_backbone_cannot_meet(raw, says):
    space = SearchSpace.load(raw)
    with pytest.raises(SpaceError) as caught:
        space.on(6)
    assert says in str(caught.value)


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
    assert dict(SearchSpace.load(path).on(2).build(lambda d: None).train) == {"learning_rate": 1e-3}
