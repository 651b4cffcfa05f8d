from __future__ import annotations

import copy
import gc
import weakref
from itertools import cycle, islice
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import attach
from autopeft.method.member import Member, draw
from autopeft.method.pack import Pack
from autopeft.method.registry import METHODS, build, lowest_layer
from autopeft.method.sites import shape_of
from autopeft.model.dropout import QuickDropout
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import (
    SIZES,
    alone,
    assert_alike,
    assert_equal_in_float64,
    assert_same,
    crew,
    fingerprint,
    outcomes,
    packs_as_if_alone,
    stir,
    together,
)

HEADS = {
    "bert": ("bert.pooler", "classifier"),
    "distilbert": ("pre_classifier", "classifier"),
    "roberta": ("classifier",),
    "vit": ("classifier",),
    "gpt2": ("lm_head",),
}


def lora(*, r: int = 3, dropout: float = 0.0, layers: tuple[int, ...] = (0, 1)) -> PeftConfig:
    options = {**METHODS["lora"].example, "r": r, "lora_dropout": dropout}
    return PeftConfig.of([Placement.of("lora", layers, options)])


def mixed(model: Any, heads: tuple[str, ...]) -> list[Member]:
    """One member of each method, and a pair, with heads of their own."""
    layers = range(len(shape_of(model).layers))
    placements = [Placement.of(name, layers, METHODS[name].example) for name in METHODS]
    configs = [PeftConfig.of([p]) for p in placements if not build(p).random_in_training]
    configs += [lora(), PeftConfig()]
    members = [draw(model, c, modules_to_save=heads, seed=i) for i, c in enumerate(configs)]
    for seed, member in enumerate(members):
        stir(member, seed)
    return members


MORE = ("roberta", "distilbert", "llama", "qwen2", "t5", "vit", "opt", "phi3", "mistral")


@pytest.mark.parametrize("architecture", MORE)
@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_members_are_as_if_alone_on_every_architecture(method: str, architecture: str) -> None:
    packs_as_if_alone(method, architecture)


# Tiny T5s, without norms behind their sublayers, blow rounding errors up to 4e-5.
@pytest.mark.parametrize("architecture", sorted({"bert", "gpt2", "bart", *MORE} - {"t5"}))
def test_float32_is_as_if_alone_to_the_fifth_digit(architecture: str) -> None:
    model = tiny(architecture).train()
    members, batch = crew("adapter", model), inputs(architecture, rows=sum(SIZES))
    single = alone(model, members, batch, SIZES)
    assert_alike(single, together(model, members, batch, SIZES), 1e-5)


def adapter(form: str, *, size: int = 5, layers: tuple[int, ...] = (0, 1)) -> Placement:
    options = {**METHODS["adapter"].example, "form": form, "size": size}
    return Placement.of("adapter", layers, options)


def test_parts_that_read_an_output_come_last_in_every_member() -> None:
    model = tiny("bert").train()
    bitfit = Placement.of("bitfit", (0, 1), {})
    serial, parallel = adapter("sequential"), adapter("parallel")
    configs = [
        PeftConfig.of([serial, bitfit, parallel]),
        PeftConfig.of([serial, serial, bitfit]),
        PeftConfig.of([serial, adapter("sequential", size=2)]),
        PeftConfig.of([bitfit, adapter("sequential", size=2), serial]),
        PeftConfig.of([parallel, parallel]),
    ]
    members = [draw(model, config, seed=i) for i, config in enumerate(configs)]
    for seed, member in enumerate(members):
        stir(member, seed)
    assert_equal_in_float64(model, members, inputs("bert", rows=sum(SIZES)), SIZES)


def test_nothing_is_kept_for_members_that_sit_out() -> None:
    model, batch = tiny("bert"), inputs("bert")
    pack = Pack(model)
    pack.join(draw(model, PeftConfig.of([adapter("parallel")])))
    pack.join(draw(model, lora()))
    seen: list[weakref.ref[Any]] = []
    query = model.bert.encoder.layer[0].attention.self.query
    query.register_forward_pre_hook(lambda _, x: seen.append(weakref.ref(x[0])))
    for sizes in ([0, 3], [1, 2], [3, 0]):
        pack.split(sizes)
        logits(model, batch)
        gc.collect()
        assert seen.pop()() is None


@pytest.mark.parametrize("architecture", sorted(HEADS))
@pytest.mark.parametrize("pattern", [(2, 1), (1,), (0, 0, 3, 0, 2)])
def test_every_member_has_a_head_of_its_own(architecture: str, pattern: tuple[int, ...]) -> None:
    model = tiny(architecture).train()
    members = mixed(model, HEADS[architecture])
    sizes = [*islice(cycle(pattern), len(members))]
    batch = inputs(architecture, rows=sum(sizes))
    pairs = [(m, n) for m, n in zip(members, sizes, strict=True) if n]
    single = alone(model, [m for m, _ in pairs], batch, [n for _, n in pairs])
    packed = together(model, members, batch, sizes)
    assert_alike(single, [one for one, n in zip(packed, sizes, strict=True) if n], 1e-5)
    for one, size in zip(packed, sizes, strict=True):
        assert bool(one.gradients) == (size > 0)


@pytest.mark.parametrize(
    ("architecture", "reentrant"),
    [(name, False) for name in ("bert", "llama", "gpt2", "bart", "vit", "opt")] + [("bert", True)],
)
def test_recomputed_activations_are_split_alike(architecture: str, reentrant: bool) -> None:
    model = tiny(architecture).train()
    members, batch = crew("adapter", model), inputs(architecture, rows=sum(SIZES))
    single = alone(model, members, batch, SIZES)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert_alike(single, together(model, members, batch, SIZES), 1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("architecture", ["bert", "llama", "t5"])
def test_prefixes_of_other_lengths_are_invisible(architecture, attention, padded) -> None:
    model = tiny(architecture, attn_implementation=attention)
    batch = inputs(architecture, padded, rows=sum(SIZES))
    assert_equal_in_float64(model, crew("prefix", model), batch, SIZES)


RATE = 1e-3


def descend(members: list[Member], optimizers: list[torch.optim.Optimizer]) -> None:
    for index, (member, optimizer) in enumerate(zip(members, optimizers, strict=True)):
        nn.utils.clip_grad_norm_(member.trainable().values(), 0.1 * (index + 1))
        optimizer.step()
        optimizer.zero_grad()


def optimizers_of(members: list[Member]) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.AdamW(member.trainable().values(), lr=RATE * (index + 1))
        for index, member in enumerate(members)
    ]


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_five_steps_are_those_of_training_alone(architecture: str) -> None:
    model = tiny(architecture).train()
    heads = HEADS.get(architecture, ())
    batches = [inputs(architecture, rows=12) for _ in range(5)]
    for seed, batch in enumerate(batches):
        batch["input_ids"] = (batch["input_ids"] * (seed + 1)) % 99
    makers = [lora(), lora(r=5, layers=(1,)), lora()]
    configs = [*makers, PeftConfig.of([Placement.of("prefix", (0,), {"length": 2})])]
    sizes, losses, states = [3, 2, 3, 4], [], []
    for packed in (True, False):
        members = [draw(model, c, modules_to_save=heads, seed=i) for i, c in enumerate(configs)]
        optimizers = optimizers_of(members)
        for batch in batches:
            found = (together if packed else alone)(model, members, batch, sizes)
            losses.append(torch.stack([one.loss for one in found]))
            descend(members, optimizers)
        states.append([member.state_dict() for member in members])
    assert torch.allclose(torch.stack(losses[:5]), torch.stack(losses[5:]), rtol=1e-5)
    assert_near(*states)


PRESENT = ((0, 1), (0, 1, 2), (0, 2), (0, 2, 3), (2,))
"""Who is there at each of five steps."""


def visits(model: Any, members: list[Member], optimizers: list[torch.optim.Optimizer]) -> None:
    """Trains whoever is present, each on three rows of its own, in one pack."""
    batch, pack = inputs("bert", rows=12), Pack(model, HEADS["bert"])
    for now in PRESENT:
        wanted = [members[i] for i in now]
        for member in set(pack.members) - set(wanted):
            pack.leave(member)
        for member in wanted:
            if member not in pack.members:
                pack.join(member)
        rows = torch.cat([torch.arange(3 * i, 3 * i + 3) for i in now])
        outcomes(pack, {name: tensor[rows] for name, tensor in batch.items()}, [3] * len(now))
        for i in now:
            optimizers[i].step()
    pack.close()


def visits_alone(
    model: Any, members: list[Member], optimizers: list[torch.optim.Optimizer]
) -> None:
    batch = inputs("bert", rows=12)
    for now in PRESENT:
        for i in now:
            own = {name: tensor[3 * i : 3 * i + 3] for name, tensor in batch.items()}
            alone(model, [members[i]], own, [3])
            optimizers[i].step()


def test_members_come_and_go_between_steps() -> None:
    model, final = tiny("bert").train(), []
    before = fingerprint(model)
    bitfit = PeftConfig.of([Placement.of("bitfit", (0, 1), {})])
    for train in (visits, visits_alone):
        configs = [lora(), lora(), lora(r=2), bitfit]
        members = [draw(model, c, modules_to_save=HEADS["bert"], seed=1) for c in configs]
        start = [member.state_dict()["head.classifier.weight"].clone() for member in members]
        train(model, members, optimizers_of(members))
        states = [member.state_dict() for member in members]
        moved = zip(start, states, strict=True)
        assert all(not torch.equal(s, state["head.classifier.weight"]) for s, state in moved)
        final.append(states)
    assert_near(*final)
    assert_same(before, fingerprint(model))


def assert_near(ones: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """AdamW divides by the size of a gradient, also of one that is but a rounding error."""
    for index, (one, other) in enumerate(zip(ones, others, strict=True)):
        for name, tensor in one.items():
            assert (tensor - other[name]).abs().max() < 0.05 * RATE * (index + 1), name


def test_a_sole_member_owns_all_rows_bit_for_bit() -> None:
    model, batch = tiny("bert"), inputs("bert")
    on = attach(model, lora(), modules_to_save=HEADS["bert"], seed=4)
    expected, state = logits(model, batch), on.state_dict()
    on.detach()
    pack, member = Pack(model, HEADS["bert"]), draw(model, lora(), modules_to_save=HEADS["bert"])
    pack.join(member)
    member.load_state_dict(state)
    assert torch.equal(logits(model, batch), expected)
    pack.join(draw(model, lora(), modules_to_save=HEADS["bert"], seed=9))
    pack.split([3, 0])
    assert torch.allclose(logits(model, batch), expected, atol=1e-6)
    pack.close()


def test_draws_start_from_the_backbone_also_beside_members() -> None:
    model, heads = tiny("bert"), HEADS["bert"]
    first = draw(model, lora(), modules_to_save=heads)
    pack = Pack(model, heads)
    pack.join(draw(model, lora(), modules_to_save=heads))
    stir(pack.members[0])
    later = draw(model, lora(), modules_to_save=heads)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, later.state_dict()[name])
    pack.close()


def test_dropout_is_drawn_for_each_member() -> None:
    model = tiny("bert")
    members = [draw(model, lora(dropout=0.5)) for _ in range(2)]
    for member in members:
        stir(member)
    batch = {name: tensor.repeat(2, 1) for name, tensor in inputs("bert").items()}
    pack = Pack(model)
    for member in members:
        pack.join(member)
    pack.split([3, 3])
    one, other = logits(model, batch).split(3)
    assert torch.allclose(one, other, atol=1e-6)
    one, other = logits(model.train(), batch).split(3)
    assert not torch.allclose(one, other, atol=1e-3)


def test_dropout_inside_heads_is_drawn_for_each_member() -> None:
    model = tiny("roberta", classifier_dropout=0.5)
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = QuickDropout
    pack = Pack(model, HEADS["roberta"])
    for _ in range(2):
        pack.join(draw(model, lora(), modules_to_save=HEADS["roberta"]))
    pack.split([3, 3])
    batch = {name: tensor.repeat(2, 1) for name, tensor in inputs("roberta").items()}
    one, other = logits(model.train(), batch).split(3)
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_autocast_stays_close_to_float32(architecture: str) -> None:
    model, batch = tiny(architecture), inputs(architecture, rows=sum(SIZES))
    members = crew("lora", model)
    exact = together(model, members, batch, SIZES)
    with torch.autocast("cpu", torch.bfloat16):
        rough = together(model, members, batch, SIZES)
    for one, other in zip(exact, rough, strict=True):
        assert (other.logits.float() - one.logits).norm() < 0.1 * one.logits.norm()
        assert one.gradients.keys() == other.gradients.keys()


def test_half_precision_backbones_train_in_float32() -> None:
    model = tiny("bert").to(torch.bfloat16)
    before = fingerprint(model)
    members = mixed(model, HEADS["bert"])
    sizes = [*islice(cycle((2, 1)), len(members))]
    batch = inputs("bert", rows=sum(sizes))
    single = alone(model, members, batch, sizes)
    packed = together(model, members, batch, sizes)
    for one, other in zip(single, packed, strict=True):
        assert other.logits.dtype == torch.float32
        assert torch.allclose(one.logits, other.logits, atol=0.1)
        assert all(g.dtype == torch.float32 for g in other.gradients.values())
    assert_same(before, fingerprint(model))


def test_meta_models_carry_packs() -> None:
    with torch.device("meta"):
        model = tf.AutoModelForSequenceClassification.from_config(tiny("bert").config)
    pack = Pack(model, HEADS["bert"])
    for name, method in METHODS.items():
        for _ in range(2):
            config = PeftConfig.of([Placement.of(name, (0, 1), method.example)])
            pack.join(draw(model, config, modules_to_save=HEADS["bert"]))
    pack.split([2] * len(pack.members))
    ids = torch.zeros(2 * len(pack.members), 8, dtype=torch.long, device="meta")
    model(input_ids=ids).logits.square().mean().backward()
    for member in pack.members:
        assert all(w.is_meta and w.grad is not None for w in member.trainable().values())


def test_inference_runs_packed() -> None:
    model, batch = tiny("bert"), inputs("bert", rows=sum(SIZES))
    members = crew("lora", model)
    expected = together(model, members, batch, SIZES)
    pack = Pack(model)
    for member in members:
        pack.join(member)
    pack.split(SIZES)
    with torch.inference_mode():
        found = logits(model, batch).split(list(SIZES))
    assert all(torch.equal(f, one.logits) for f, one in zip(found, expected, strict=True))


def test_rows_have_to_be_split_first_and_to_fit() -> None:
    model = tiny("bert")
    pack = Pack(model)
    for seed in range(2):
        pack.join(draw(model, lora(), seed=seed))
    with pytest.raises(AttachError, match="2 members share the rows; split them first"):
        logits(model, inputs("bert"))
    for sizes in ([3], [-1, 4], [0, 0]):
        with pytest.raises(AttachError, match="sizes: must be the rows of each of 2 members"):
            pack.split(sizes)
    pack.split([2, 3])
    with pytest.raises(AttachError, match="sizes: 5 rows were split, but 3 came"):
        logits(model, inputs("bert"))
    pack.join(draw(model, lora()))
    with pytest.raises(AttachError, match="3 members share the rows"):
        logits(model, inputs("bert"))


def test_joining_and_leaving_say_what_is_wrong() -> None:
    model = tiny("bert")
    pack, member = Pack(model), draw(model, lora())
    pack.join(member)
    with pytest.raises(AttachError, match="in the pack already"):
        pack.join(member)
    with pytest.raises(AttachError, match="not in the pack"):
        pack.leave(draw(model, lora()))
    with pytest.raises(AttachError, match=r"modules_to_save: must be .* as for the pack"):
        pack.join(draw(model, lora(), modules_to_save=("classifier",)))
    with pytest.raises(AttachError, match="another backbone"):
        pack.join(draw(copy.deepcopy(tiny("bert")), lora()))
    with pytest.raises(AttachError, match="carries a configuration"):
        Pack(model)
    pack.close()
    pack.close()


@pytest.mark.parametrize("architecture", ["deberta-v2", "mpnet"])
def test_attention_of_its_own_takes_one_member(architecture: str) -> None:
    model = tiny(architecture)
    pack = Pack(model)
    assert not pack.takes_several
    pack.join(draw(model, lora()))
    with pytest.raises(AttachError, match="which several members need"):
        pack.join(draw(model, lora()))
    assert len(pack.members) == 1


def test_modules_to_save_inside_the_layers_take_one_member() -> None:
    model, heads = tiny("bert"), ("bert.encoder.layer.1.output",)
    pack = Pack(model, heads)
    pack.join(draw(model, lora(), modules_to_save=heads))
    with pytest.raises(AttachError, match="cannot save modules that reach into"):
        pack.join(draw(model, lora(), modules_to_save=heads))


def test_the_lowest_layer_is_where_a_site_is_found() -> None:
    shape = shape_of(tiny("t5"))
    cross = {**METHODS["lora"].example, "targets": ("cross.q",)}
    config = PeftConfig.of([Placement.of("lora", range(4), cross)])
    assert lowest_layer(config, shape) == 2
    assert lowest_layer(lora(layers=(1, 3)), shape) == 1
    assert lowest_layer(PeftConfig(), shape) == 4
