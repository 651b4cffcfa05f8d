"""Every document of the catalog loads, names only known things and can be attached."""

import numpy as np
import pytest
import yaml

from autopeft.core.catalog import names
from autopeft.core.errors import AttachError, SpaceError
from autopeft.core.published import PUBLISHED
from autopeft.method.attach import attach
from autopeft.method.count import count, trained_elements
from autopeft.method.sites import shape_of
from autopeft.objective.objective import load_objectives
from autopeft.space import SearchSpace
from autopeft.study.spec import load_spec
from autopeft.task.registry import task_of
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import examples

PARTS = {"num_hidden_layers": 4}


@pytest.mark.parametrize("architecture", ["bert", "llama"])
@pytest.mark.parametrize("name", names("search_spaces"))
def test_spaces_attach(name, architecture):
    model = tiny(architecture, **PARTS)
    batch = inputs(architecture)
    before = logits(model, batch)
    shape = shape_of(model)
    space = SearchSpace.load(name)
    if (name, architecture) == ("bitfit", "llama"):
        with pytest.raises(SpaceError, match="bitfit finds nothing to train"):
            space.on(shape, trained_elements)
        return
    bound = space.on(shape, trained_elements)
    if name in ("apt", "unipelt") and architecture == "llama":
        with pytest.raises(AttachError, match="a gate averages over the whole text"):
            attach(model, bound.resolve({}))
        return
    rng = np.random.default_rng(0)
    for _ in range(1 if not bound.dimensions else 10):
        config = bound.draw(rng).config
        attached = attach(model, config, examples=examples(model))
        try:
            counted = count(config, shape)
            assert counted.trainable == sum(p.numel() for p in attached.trainable().values())
            assert logits(model, batch).isfinite().all()
        finally:
            attached.detach()
    assert (logits(model, batch) == before).all()


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.name)
def test_what_papers_call_methods_is_said_here(published):
    if published.space:
        assert published.space in names("search_spaces")
    if published.place is not None:
        place = yaml.safe_load(published.said)
        config = SearchSpace(place=[place]).on(shape_of(tiny("bart"))).resolve({})
        (placement,) = config.placements
        assert placement.method == published.place["method"]
        assert published.place.items() <= {"method": placement.method, **_lists(placement)}.items()


def _lists(placement):
    options = dict(placement.options)
    return {n: list(v) if isinstance(v, tuple) else v for n, v in options.items()}


def test_published_names_are_told_apart():
    assert len({published.name for published in PUBLISHED}) == len(PUBLISHED)


@pytest.mark.parametrize("name", names("objectives"))
def test_objectives_load(name):
    assert load_objectives(name)


@pytest.mark.parametrize("name", names("studies"))
def test_studies_name_known_things(name):
    spec = load_spec(name)
    goals = task_of(spec.task).goals
    for objective in load_objectives(spec.objectives):
        assert objective.known or goals[objective.name] == objective.goal
    for reference in (spec.space, *spec.search.baselines):
        assert SearchSpace.load(reference)
    assert all(SearchSpace.load(b).is_configuration for b in spec.search.baselines)
