"""Every sampler proposes points of every space of the catalog, on small and larger backbones."""

from __future__ import annotations

import optuna
import pytest

from autopeft.core.catalog import names
from autopeft.core.shape import Shape
from autopeft.method.count import count, trained_elements
from autopeft.objective.quantity import Known
from autopeft.search.bayes import BayesSampler
from autopeft.search.sampler import SAMPLERS, Problem
from autopeft.space import SearchSpace
from tests.contracts import sampler as kit
from tests.shapes import BERT, MINILM

OPEN = [name for name in names("search_spaces") if not SearchSpace.load(name).is_configuration]

optuna.logging.set_verbosity(optuna.logging.ERROR)


LARGER = ("layer-mix", "bayes", BERT)


@pytest.mark.parametrize(
    ("name", "sampler", "shape"),
    [*((name, sampler, MINILM) for name in OPEN for sampler in SAMPLERS), LARGER],
)
def test_five_proposals(name: str, sampler: str, shape: Shape) -> None:
    """After a baseline without a point; the model of `bayes` makes the last one."""
    space = SearchSpace.load(name).on(shape, trained_elements)
    known = {"trainable_params": Known(lambda config: count(config, shape).trainable)}
    problem = Problem(space, kit.problem().objectives, known, {}, 0)
    made = SAMPLERS[sampler](problem)
    if isinstance(made, BayesSampler):
        made.n_startup = 4
    study = kit.new_study(made)
    study.add_trial(kit.foreign())
    for _ in range(5):
        trial, config = kit.ask(study, space)
        size = known["trainable_params"].value(config)
        trial.set_user_attr("known", {"trainable_params": size})
        study.tell(trial, [0.9 - 0.3 / (1 + size / 1e5), size])
        assert "fallback" not in trial.user_attrs
