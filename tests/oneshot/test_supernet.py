import math
from contextlib import contextmanager

import numpy as np
import torch
from safetensors.torch import load_file

from autopeft.core.order import Order
from autopeft.objective.pareto import hypervolume
from autopeft.oneshot.evolution import evolve
from autopeft.oneshot.shared import Shared
from autopeft.oneshot.supernet import Supernet
from autopeft.search.candidates import everything
from autopeft.space import SearchSpace
from autopeft.train.member_training import STATE_FILE
from tests.contracts import proposer as kit

ALONE = SearchSpace(
    place=[
        {"method": "lora", "r": 4, "lora_dropout": 0.1},
        {"method": "adapter", "size": 8, "learning_rate": 1e-3},
    ],
    train={"learning_rate": 2e-3, "batch_size": 16},
    backbone={"dtype": "float32"},
)


NESTED = SearchSpace(
    layers={"groups": 2},
    place=[
        {"method": "lora", "r": {"choice": [0, 2, 8]}},
        {"method": "adapter", "size": {"int": [0, 16]}},
    ],
    backbone={"dtype": "float32"},
)


@contextmanager
def sharing(trainer, configs, seed=0):
    with trainer.lend(configs[0]) as lent:
        yield lent, Shared(lent, configs, seed)


def test_of_one_configuration_it_is_its_training(trainer, tmp_path):
    """Every tensor and the loss of every epoch; norms are summed in another order."""
    asked = kit.problem(trainer, space=ALONE)
    config = asked.space.resolve({})
    reports = [*trainer([config], Order((1.0, 2.0), 3, str(tmp_path)))]
    with sharing(trainer, [config], seed=3) as (lent, shared):
        own = [*Supernet(epochs=1).train(asked, lent, shared, 0, Order((2.0,), 3))]
        inherited = {
            site.placed.name(weight): site.tensors[weight.name].detach()
            for site in shared.member(config).sites
            for weight in site.placed.site.weights
        }
    assert [r.metrics["train_loss"] for r in own] == [r.metrics["train_loss"] for r in reports]
    alone = load_file(tmp_path / STATE_FILE)
    assert inherited.keys() == {name for name in alone if not name.startswith("head.")}
    assert all(torch.allclose(t, alone[name], atol=1e-7) for name, t in inherited.items())


def test_smaller_ones_have_the_first_rows_and_columns(trainer):
    asked = kit.problem(trainer, space=NESTED)
    small, large = (
        asked.space.resolve({**asked.corner(1.0).point, "0.lora.r@g1": r, "1.adapter.size@g1": n})
        for r, n in ((2, 3), (8, 16))
    )
    with sharing(trainer, [large]) as (lent, shared):
        one, other = (
            {s.placed.key: s.tensors for s in shared.member(config).sites}
            for config in (small, large)
        )
        with lent.carrying(shared.member(small), training=True):
            outputs, targets = lent.passes.outputs(lent.train, torch.arange(4), [4])
            lent.passes.criterion.losses(outputs, targets).sum().backward()
    for key, tensors in one.items():
        for name, tensor in tensors.items():
            corner = tuple(map(slice, tensor.shape))
            assert torch.equal(tensor, other[key][name][corner])
    assert one["layers.0.lora.self.q"]["A"].shape == (2, 384)
    (b,) = (t for n, t in shared._tensors.items() if n.endswith("layers.0.lora.self.q B"))
    assert b.grad[:, :2].abs().min() > 0
    assert not b.grad[:, 2:].any()


def test_what_is_larger_than_all_keeps_what_is_drawn(trainer):
    asked = kit.problem(trainer, space=NESTED)
    point = asked.corner(1.0).point
    small, large = (asked.space.resolve({**point, "0.lora.r@g1": r}) for r in (2, 8))
    with sharing(trainer, [small]) as (_, shared):
        whole, part = (
            next(s for s in shared.member(c).sites if s.placed.key == "layers.0.lora.self.q")
            for c in (large, small)
        )
    assert torch.equal(whole.tensors["A"][:2], part.tensors["A"])
    assert whole.tensors["A"][2:].abs().min() > 0


def test_sizes_of_methods_that_do_not_nest_share_nothing(trainer):
    """The first elements of VeRA's vectors belong to other frozen matrices."""
    space = SearchSpace(
        place=[{"method": "vera", "r": {"choice": [2, 4]}}], backbone={"dtype": "float32"}
    )
    asked = kit.problem(trainer, space=space)
    small, large = (asked.space.resolve({"0.vera.r@all": r}) for r in (2, 4))
    with sharing(trainer, [small, large]) as (_, shared):
        with torch.no_grad():
            for tensor in shared._tensors.values():
                tensor.fill_(7.0)
        sites = [s for config in (small, large) for s in shared.member(config).sites]
        assert all((s.tensors["d"] == 7).all() for s in sites)
        sizes = {tuple(t.shape) for n, t in shared._tensors.items() if " d " in n}
    assert sizes == {(2,), (4,)}


def test_a_tensor_of_all_layers_is_one(trainer):
    space = SearchSpace(place=[{"method": "compacter", "size": 8}], backbone={"dtype": "float32"})
    asked = kit.problem(trainer, space=space)
    with sharing(trainer, [asked.space.resolve({})]) as (_, shared):
        tensors = [tensor for group in shared.groups.values() for tensor in group]
    assert len({id(tensor) for tensor in tensors}) == len(tensors)
    assert sum(" A 4 4 4" in name for name in shared.state_dict()) == 1


def test_what_diverges_comes_last(trainer):
    asked = kit.problem(trainer)
    cost = asked.known["trainable_params"].value

    def judge(drawn):
        return [math.nan if cost(drawn.config) < 40_000 else -cost(drawn.config)]

    found = evolve(asked, judge, np.random.default_rng(0), 12, 3)
    broken = [cost(drawn.config) < 40_000 for drawn in found]
    assert any(broken)
    assert broken == sorted(broken)


def test_evolution_finds_more_than_chance(trainer):
    """Of as many configurations that it judges, in a space of 999 of which 20 are the front."""
    space = SearchSpace(
        layers={"groups": 3},
        place=[
            {"method": "lora", "r": {"choice": [0, 1, 2, 4, 8]}},
            {"method": "bitfit", "where": {"subset": "groups"}},
        ],
        backbone={"dtype": "float32"},
    )
    asked = kit.problem(trainer, space=space)

    def judge(drawn):
        placed = drawn.config.placements
        ranks = sum(p["r"] * (1 + max(p.layers)) for p in placed if p.method == "lora")
        return [-float(np.log1p(ranks)) - 0.1 * sum(p.method == "bitfit" for p in placed)]

    def volume(drawn):
        return hypervolume([[*judge(d), *asked.costs(d)] for d in drawn], [0.0, np.log(1e6)])

    whole = volume([d for d in everything(asked.space) if d.config.placements])
    found, chance = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        judged = evolve(asked, judge, rng, size=24, generations=4)
        assert len({d.config.key for d in judged}) == len(judged) <= 130
        found.append(volume(judged) / whole)
        chance.append(volume([asked.draw(rng) for _ in judged]) / whole)
    assert 1 - np.mean(found) < 0.75 * (1 - np.mean(chance))
    assert min(found) > 0.9


def test_parents_and_neighbours_keep_the_limits(trainer):
    asked = kit.problem(trainer, {"trainable_params": kit.MOST})
    cost = asked.known["trainable_params"].value
    found = evolve(asked, lambda drawn: [-cost(drawn.config)], np.random.default_rng(0), 12, 3)
    assert found
    assert all(cost(drawn.config) <= kit.MOST for drawn in found)


def test_a_cross_has_each_decision_of_a_parent(trainer):
    space = kit.problem(trainer).space
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = space.draw(rng), space.draw(rng)
        child = space.cross(one, other, rng)
        for name, value in child.point.items():
            assert value in (one.point.get(name, value), other.point.get(name, value))
