"""What every declared method promises the rooms that read it, and all that a new one takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import yaml

import autopeft
from autopeft.cli.catalog import entries
from autopeft.core.catalog import parse
from autopeft.core.config import PeftConfig, Placement
from autopeft.core.declaration import Declaration
from autopeft.core.methods import DECLARATIONS
from autopeft.core.options import (
    REQUIRED,
    Flag,
    Name,
    Number,
    OneOf,
    Option,
    Sites,
    Size,
    Whole,
    option,
)
from autopeft.core.shape import LayerShape
from autopeft.core.size import size_of
from autopeft.method.attach import attach
from autopeft.method.method import Change, Method, Site, Weight, Weights
from autopeft.method.registry import METHODS, build
from autopeft.report import summary
from autopeft.search.features import features
from autopeft.space import SearchSpace, choice
from tests.backbones import tiny

Check = Callable[[str], None]

KEYS = {
    "bitfit": "8e56e76f88730ec4",
    "head-only": "3947b05cd20868c1",
    "houlsby": "f112fd55f4209f1c",
    "lora": "910bf2182df3ed2b",
    "mam": "160cf5dab2346c95",
    "parallel": "2587d3fa49317e13",
    "pfeiffer": "c3b81d6e26af3a0c",
    "prefix": "3b4ae82cc2fdb112",
}
"""On six layers, as studies have recorded them."""


@pytest.mark.parametrize(("name", "key"), KEYS.items())
def test_keys_in_records_stay(name: str, key: str) -> None:
    assert SearchSpace.load(name).on(6).resolve({}).key == key


def test_the_key_of_what_the_catalog_had_before_stays() -> None:
    """`mam` had one rate for all."""
    place = [
        {"method": "prefix", "length": 30, "learning_rate": 5e-2},
        {"method": "adapter", "form": "parallel", "at": "ffn", "size": 512, "scale": 4},
    ]
    space = SearchSpace(name="mam", place=place, train={"learning_rate": 2e-3})
    assert space.on(6).resolve({}).key == "9131370af8ecc1b5"


def test_keys_of_options_beside_the_defaults_stay() -> None:
    place = [
        {"method": "lora", "targets": ["down", "v", "cross.q"], "r": 4, "lora_alpha": 3},
        {"method": "lora", "lora_dropout": 0.25, "where": [1, 2]},
        {"method": "adapter", "size": 6, "form": "parallel", "at": "both", "scale": 4},
        {"method": "adapter", "size": 6, "activation": "gelu", "bias": False, "where": 5},
    ]
    config = SearchSpace(place=place).on(6).resolve({})
    assert config.key == "5e3be8808037db28"


def has_mathematics_for_its_options(name: str) -> None:
    """Some options are enough to place, and those left out have their defaults."""
    method = build(Placement.of(name, [0], _needed(name)))
    assert type(method) is METHODS[name]
    assert type(method.options) is DECLARATIONS[name]
    assert not any(isinstance(value, Option) for value in vars(method.options).values())


def has_words_that_tell_options_apart(name: str) -> None:
    """Every other value of an option gives another text that begins alike and stays on one line."""
    plain, texts = _summary(name), set[str]()
    for key, values in _values(name).items():
        others = {_summary(name, **{key: value}) for value in values}
        assert len(others) == len(values), f"{key} is not told"
        texts |= others
    assert DECLARATIONS[name].method in plain
    assert all("\n" not in text and len(text) < 100 for text in texts)


def is_known_to_features(name: str) -> None:
    """Size is what the declaration says it is, and every option shows in the features."""
    kinds = DECLARATIONS[name].options().items()
    sizes = [key for key, kind in kinds if isinstance(kind, Size)] or [None]
    assert sizes == [DECLARATIONS[name].size_option()]
    for key, values in _values(name).items():
        configs = [_config(name, **{key: value}) for value in values]
        rows = features([*configs, PeftConfig()], 2)
        assert len({tuple(row) for row in rows}) == len(values) + 1, f"{key} makes no difference"
    placement = _placement(name, **({} if sizes == [None] else {sizes[0]: 5}))
    assert size_of(placement) == (1 if sizes == [None] else 5)


def reads_the_same_in_yaml_and_python(name: str) -> None:
    """A placement in Python is the one in YAML, with values, domains and options left out."""
    kind = getattr(autopeft, DECLARATIONS[name].__name__)
    values = _values(name)
    for where in ({}, {"where": [0, 1]}):
        for options in (
            _needed(name),
            _needed(name) | {key: items[0] for key, items in values.items()},
            _needed(name) | {key: choice(*items) for key, items in values.items()},
        ):
            text = yaml.safe_dump({"method": name, **_plain(options), **where})
            in_yaml = SearchSpace(place=[parse(text, "")])
            in_python = SearchSpace(place=[kind(**options, **where)])
            assert in_python == in_yaml
            assert SearchSpace.load(in_python.to_dict()) == in_yaml


CHECKS: tuple[Check, ...] = (
    has_mathematics_for_its_options,
    has_words_that_tell_options_apart,
    is_known_to_features,
    reads_the_same_in_yaml_and_python,
)


def test_declarations_and_mathematics_are_of_the_same_methods() -> None:
    assert DECLARATIONS.keys() == METHODS.keys()
    assert {kind.__name__ for kind in DECLARATIONS.values()} <= set(autopeft.__all__)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(DECLARATIONS))
def test_declaration_keeps_its_promises(name: str, check: Check) -> None:
    check(name)


@dataclass(frozen=True, kw_only=True)
class Shift(Declaration):
    """Moves what attention gives by a trained vector, in `size` equal summands."""

    method: ClassVar[str] = "shift"
    size: int = option(Size())
    factor: float = option(Number(1.0, above=0))


class ShiftMethod(Method[Shift]):
    def looks_for(self) -> str:
        return "attention"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        output = layer.linear("self.o")
        shape = (self.options.size, output.outputs) if output else ()
        return (Site("self", "self.o", (Weight("rows", shape),)),) if output else ()

    def part(self, site: Site, weights: Weights) -> Change:
        shift = self.options.factor * weights["rows"].sum(0)
        return Change(site.at, lambda training: shift, reads=())


@pytest.fixture
def shift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECLARATIONS.own, "shift", Shift)
    monkeypatch.setitem(METHODS.own, "shift", ShiftMethod)
    monkeypatch.setattr(autopeft, "Shift", Shift, raising=False)


@pytest.mark.usefixtures("shift")
def test_a_new_method_takes_a_declaration_and_its_mathematics() -> None:
    for check in CHECKS:
        check("shift")
    space = SearchSpace(place=[{"method": "shift", "size": {"choice": [2, 4]}, "where": [1]}])
    bound = space.on(2)
    config = bound.resolve(dict.fromkeys(bound.dimensions, 4))
    assert summary(config) == "shift 4 @1"
    assert attach(tiny("bert"), config).trainable()["layers.1.shift.self.rows"].shape == (4, 32)
    said = {entry["name"]: entry["description"] for entry in entries("methods")}["shift"]
    assert said.startswith("Moves what attention gives by a trained vector, ")
    assert said.endswith(" size, factor, learning_rate")


class Mute(Shift):
    def words(self) -> str:
        return "shift"


class Closed(Shift):
    def to_dict(self) -> dict[str, Any]:
        return {"method": "shift", "size": 1}


class Sizeless(Shift):
    @classmethod
    def size_option(cls) -> str | None:
        return None


class Stubborn(Shift):
    @classmethod
    def completed(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}


@pytest.mark.usefixtures("shift")
@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Stubborn, has_mathematics_for_its_options),
        (Mute, has_words_that_tell_options_apart),
        (Sizeless, is_known_to_features),
        (Closed, reads_the_same_in_yaml_and_python),
    ],
)
def test_kit_fails_on_a_broken_declaration(broken, check: Check, monkeypatch) -> None:
    monkeypatch.setitem(DECLARATIONS.own, "shift", broken)
    monkeypatch.setattr(autopeft, broken.__name__, broken, raising=False)
    with pytest.raises(AssertionError):
        check("shift")


def _values(name: str) -> dict[str, tuple[Any, ...]]:
    """Two or more values of every option."""
    return {key: _alternatives(kind) for key, kind in DECLARATIONS[name].options().items()}


def _alternatives(kind: Option) -> tuple[Any, ...]:
    if isinstance(kind, OneOf):
        return kind.names
    values = {
        Size: (4, 8),
        Whole: (2, 4),
        Name: ("miss", "oft"),
        Number: (0.25, 0.5),
        Flag: (False, True),
        Sites: (("k",), ("q", "o")),
    }
    return values[type(kind)]


def _needed(name: str) -> dict[str, Any]:
    """The options without a default."""
    values = _values(name)
    options = DECLARATIONS[name].options()
    return {key: values[key][0] for key, kind in options.items() if kind.default is REQUIRED}


def _placement(name: str, **options: Any) -> Placement:
    closed = DECLARATIONS[name].closed({**_needed(name), **options})
    document = {key: value for key, value in closed.to_dict().items() if key != "method"}
    return Placement.of(name, [0], document)


def _config(name: str, **options: Any) -> PeftConfig:
    return PeftConfig.of([_placement(name, **options)])


def _summary(name: str, **options: Any) -> str:
    return summary(_config(name, **options))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
