"""Methods that HF peft lacks, or has in another form, against what their papers write down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import peft
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.core.config import PeftConfig, Placement
from autopeft.method.attach import Attached, attach
from autopeft.method.count import count
from autopeft.method.sites import shape_of
from tests.backbones import inputs, logits, tiny
from tests.method.test_count import meta
from tests.method.test_oracles import LAYERS, assert_equal, gradients, ours, site, sites

ADAPTER = {"form": "sequential", "at": "both", "size": 4, "scale": 1.0}


def adapted(
    on: Attached, adapter: Callable[[Mapping[str, Tensor], Tensor], Tensor], method: str
) -> Tensor:
    """Logits of BERT with an adapter after both sublayers of each layer, before the residual."""
    model, tensors = tiny("bert"), on.state_dict()
    for layer in LAYERS:
        for name, role in (("self", "o"), ("ffn", "down")):
            stem = f"layers.{layer}.{method}.{name}."
            own = {k.removeprefix(stem): t for k, t in tensors.items() if k.startswith(stem)}
            shared = {k: t for k, t in tensors.items() if k.startswith("shared.")}
            weights = {**own, **shared}
            model.get_submodule(site(layer, role)).register_forward_hook(
                lambda module, x, y, weights=weights: y + adapter(weights, y)
            )
    return logits(model, inputs("bert"))


def drawn_in_training(on: Attached, known: Sequence[Tensor]) -> set[int]:
    """Which of the known logits twenty passes in training give; each gives one of them."""
    torch.manual_seed(0)
    on.model.train()
    drawn = [logits(on.model, inputs("bert")) for _ in range(20)]
    return {
        next(n for n, one in enumerate(known) if torch.allclose(each, one, atol=1e-5))
        for each in drawn
    }


def test_compacter() -> None:
    """Sums of Kronecker products, with one A for all layers and projections."""
    options = {**ADAPTER, "activation": "gelu", "bias": True, "phm_dim": 2, "phm_rank": 1}
    on = ours("compacter", **options)
    assert [name for name in on.state_dict() if "A" in name] == ["shared.compacter.phm.A"]

    def adapter(weights: Mapping[str, Tensor], h: Tensor) -> Tensor:
        a = weights["shared.compacter.phm.A"]

        def matrix(name: str) -> Tensor:
            small = [s @ t for s, t in zip(weights[f"{name}.s"], weights[f"{name}.t"], strict=True)]
            return sum((torch.kron(x, y) for x, y in zip(a, small, strict=True)), torch.zeros(()))

        inner = F.gelu(h @ matrix("down").T + weights["down.bias"])
        return inner @ matrix("up").T + weights["up.bias"]

    expected = adapted(on, adapter, "compacter")
    assert torch.allclose(logits(on.model, inputs("bert")), expected, atol=1e-5)


# The overview of the library AdapterHub prints these for bert-base, with a reduction factor of 32.
@pytest.mark.parametrize(("at", "published"), [("both", 57_088), ("ffn", 28_576)])
def test_compacter_has_its_published_count(at: str, published: int) -> None:
    shape = shape_of(meta("bert-base"))
    options = {"at": at, "size": 24, "phm_dim": 4, "phm_rank": 1}
    config = PeftConfig.of([Placement.of("compacter", range(12), options)])
    assert count(config, shape).trainable == published


def test_a_product_is_cut_where_its_factors_do_not_divide_a_width() -> None:
    on = ours("compacter", size=5, phm_dim=3)
    assert on.state_dict()["layers.0.compacter.self.down.s"].shape == (3, 2, 1)
    assert on.state_dict()["layers.0.compacter.self.down.t"].shape == (3, 1, 11)
    logits(on.model, inputs("bert")).square().mean().backward()
    assert all(weight.grad.abs().max() > 0 for weight in on.trainable().values())


def test_propetl() -> None:
    """Of one adapter each sublayer keeps the elements with the largest scores."""
    on = ours("propetl", **ADAPTER, activation="gelu", bias=True, density=0.25)
    shared = [name for name in on.state_dict() if name.startswith("shared.")]
    assert len(shared) == 4

    def adapter(weights: Mapping[str, Tensor], h: Tensor) -> Tensor:
        common = {name.split(".", 3)[3]: weights[name] for name in shared}

        def matrix(name: str) -> Tensor:
            sizes = weights[f"{name}.scores"].abs().bfloat16().flatten().tolist()
            order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
            kept = torch.zeros(len(sizes))
            kept[order[: len(sizes) // 4]] = 1
            return common[f"{name}.weight"] * kept.view_as(common[f"{name}.weight"])

        inner = F.gelu(h @ matrix("down").T + common["down.bias"])
        return inner @ matrix("up").T + common["up.bias"]

    expected = adapted(on, adapter, "propetl")
    assert torch.allclose(logits(on.model, inputs("bert")), expected, atol=1e-5)


def test_scores_learn_as_if_they_were_the_mask() -> None:
    """Each from the gradient of its element of the matrix, also where that is left out."""
    options = {**ADAPTER, "at": "ffn", "activation": "gelu", "bias": False}
    on = ours("propetl", layers=(1,), **options)
    (site_here,) = on.sites
    plain = ours("adapter", layers=(1,), **options)
    masked = site_here.placed.method.settled_weights(site_here.tensors)
    plain.load_state_dict({f"layers.1.adapter.ffn.{n}": t.detach() for n, t in masked.items()})
    for each in (on, plain):
        logits(each.model, inputs("bert")).square().mean().backward()
    for name in ("down", "up"):
        scores, shared = site_here.weights[f"{name}.scores"], site_here.weights[f"{name}.weight"]
        whole = plain.trainable()[f"layers.1.adapter.ffn.{name}.weight"].grad
        assert torch.allclose(scores.grad, whole * shared * scores.sign(), atol=1e-6)
        kept = masked[f"{name}.weight"] != 0
        assert int(kept.sum()) == kept.numel() // 2
        assert torch.allclose(shared.grad, whole * kept, atol=1e-6)


def test_masks_are_alike_in_any_precision() -> None:
    on = ours("propetl", **ADAPTER, activation="relu", bias=True)
    site_here = on.sites[0]
    narrow = {name: tensor.bfloat16() for name, tensor in site_here.tensors.items()}
    of = site_here.placed.method.settled_weights
    wide, rounded = of(site_here.tensors), of(narrow)
    for name in ("down.weight", "up.weight"):
        assert torch.equal(wide[name] != 0, rounded[name] != 0)


def test_sparse_adapter() -> None:
    """A quarter of each matrix; the downward one trains what is added to how it was drawn."""
    options = {"activation": "gelu", "bias": True, "density": 0.25, "select": "random"}
    on = ours("sparse-adapter", **ADAPTER, **options)
    drawn = {key: site.tensors for site in on.sites for key in [site.placed.key]}

    def adapter(weights: Mapping[str, Tensor], h: Tensor) -> Tensor:
        (own,) = (t for t in drawn.values() if t["up.values"].equal(weights["up.values"]))

        def matrix(name: str) -> Tensor:
            rows, columns = own[f"{name}.drawn"].shape
            whole = torch.zeros(rows, columns)
            for place, value in zip(own[f"{name}.index"], weights[f"{name}.values"], strict=True):
                row, column = divmod(int(place), columns)
                start = own["down.drawn"][row, column] if name == "down" else 0
                whole[row, column] = start + value
            return whole

        inner = F.gelu(h @ matrix("down").T + weights["down.bias"])
        return inner @ matrix("up").T + weights["up.bias"]

    expected = adapted(on, adapter, "sparse-adapter")
    assert torch.allclose(logits(on.model, inputs("bert")), expected, atol=1e-5)


def test_adamix() -> None:
    """One expert of each projection within the training, the means of all after it."""
    options = {**ADAPTER, "at": "ffn", "activation": "relu", "bias": True, "n_experts": 2}
    on = ours("adamix", layers=(1,), **options)

    def of(choose: Callable[[Tensor, str], Tensor]) -> Tensor:
        def adapter(weights: Mapping[str, Tensor], h: Tensor) -> Tensor:
            if not weights:
                return torch.zeros(())
            (down, a), (up, b) = (
                (choose(weights[f"{name}.weight"], name), choose(weights[f"{name}.bias"], name))
                for name in ("down", "up")
            )
            return F.relu(h @ down.T + a) @ up.T + b

        return adapted(on, adapter, "adamix")

    batch = inputs("bert")
    mean = of(lambda tensor, name: tensor.mean(0))
    assert torch.allclose(logits(on.model, batch), mean, atol=1e-5)
    pairs = [{"down": i, "up": j} for i in range(2) for j in range(2)]
    single = [of(lambda tensor, name, pair=pair: tensor[pair[name]]) for pair in pairs]
    assert drawn_in_training(on, single) == set(range(4))


def test_ssf() -> None:
    """Scales and shifts after every linear and norm."""
    on = ours("ssf")
    model, tensors = tiny("bert"), on.state_dict()
    places = {trained.placed.key: trained.placed.site.at for trained in on.sites}
    assert len(places) == 2 * 6 + 5
    for trained in on.sites:
        at, key = trained.placed.site.at, trained.placed.key
        path = at if "." in at and at.startswith("bert") else ""
        path = path or site(trained.placed.layer, at.removeprefix("self."))
        scale, shift = tensors[f"{key}.scale"], tensors[f"{key}.bias"]
        model.get_submodule(path).register_forward_hook(
            lambda module, x, y, scale=scale, shift=shift: y * (1 + scale) + shift
        )
    assert torch.allclose(
        logits(on.model, inputs("bert")), logits(model, inputs("bert")), atol=1e-5
    )


def test_full_tuning() -> None:
    """The same function and the same gradients as the linears' own weights have."""
    on = ours("full", targets=("q", "down"))
    model, tensors = tiny("bert"), on.state_dict()
    own = {}
    for layer in LAYERS:
        for name, role in (("self.q", "q"), ("down", "down")):
            for tensor in ("weight", "bias"):
                weight = model.get_parameter(f"{site(layer, role)}.{tensor}")
                weight.data += tensors[f"layers.{layer}.full.{name}.{tensor}"]
                own[f"layers.{layer}.full.{name}.{tensor}"] = weight
    batch = inputs("bert")
    assert torch.allclose(logits(on.model, batch), logits(model, batch), atol=1e-5)
    here, _ = gradients(on, model)
    for name, weight in own.items():
        assert torch.allclose(here[name], weight.grad, atol=1e-5)


@pytest.mark.parametrize("select", ["smallest", "largest", "random"])
def test_sparse_tuning_is_shira_with_the_same_mask(select: str) -> None:
    roles = ("q", "down")
    on = ours("sparse", targets=roles, r=3, select=select)
    theirs = peft.get_peft_model(
        tiny("bert"), peft.ShiraConfig(r=3, target_modules=sites(*roles), mask_type="random")
    )
    for trained in on.sites:
        place = site(trained.placed.layer, trained.placed.site.at.removeprefix("self."))
        module = theirs.get_submodule(f"base_model.model.{place}")
        weight, index = module.get_base_layer().weight, trained.frozen["index"]
        rows, columns = index // weight.shape[1], index % weight.shape[1]
        module.shira_indices["default"] = torch.stack([rows, columns]).int()
        module.shira_weight["default"].data.copy_(trained.weights["values"])
        chosen = weight.detach().abs().flatten()[index]
        rest = weight.detach().abs().flatten().clone()
        rest[index] = float("nan")
        rest = rest[~rest.isnan()]
        assert len(chosen) == 3 * sum(weight.shape)
        if select == "smallest":
            assert chosen.max() <= rest.min()
        elif select == "largest":
            assert chosen.min() >= rest.max()
        else:
            assert chosen.min() < rest.max()
            assert chosen.max() > rest.min()
    here, there = gradients(on, theirs)
    for trained in on.sites:
        place = site(trained.placed.layer, trained.placed.site.at.removeprefix("self."))
        gradient = there[f"base_model.model.{place}.shira_weight.default"]
        assert torch.allclose(here[f"{trained.placed.key}.values"], gradient, atol=1e-5)
    assert_equal(on, theirs)


def test_random_places_differ_between_layers_and_not_between_seeds() -> None:
    def places(seed: int) -> list[list[int]]:
        config = PeftConfig.of([Placement.of("sparse", LAYERS, {"r": 1, "select": "random"})])
        on = attach(tiny("bert"), config, seed=seed)
        return [trained.frozen["index"].tolist() for trained in on.sites]

    first, again = places(0), places(1)
    assert first == again
    assert len(set(map(tuple, first))) == len(first)


@pytest.mark.parametrize("stable", [False, True])
def test_dylora(stable: bool) -> None:
    """Within the training the first ranks alone, as many as are drawn; all of them after it."""
    rank = {"targets": ("q",), "r": 3, "lora_alpha": 6.0, "lora_dropout": 0.0}
    rank["use_rslora"] = stable
    on = ours("lora", layers=(1,), use_dylora=True, **rank)
    tensors, batch = on.state_dict(), inputs("bert")

    def cut(n: int) -> Tensor:
        first = ours("lora", layers=(1,), **{**rank, "r": n})
        a, b = tensors["layers.1.lora.self.q.A"], tensors["layers.1.lora.self.q.B"]
        first.load_state_dict({"layers.1.lora.self.q.A": a[:n], "layers.1.lora.self.q.B": b[:, :n]})
        return logits(first.model, batch)

    cuts = [cut(n) for n in (1, 2, 3)]
    assert torch.allclose(logits(on.model, batch), cuts[2], atol=1e-5)
    assert drawn_in_training(on, cuts) == set(range(3))


def test_a_prefix_through_a_network() -> None:
    """Keys and values of a layer are W tanh(V e + c) + b, as HF peft makes them all at once."""
    on = ours("prefix", length=3, prefix_projection=True, encoder_hidden_size=6)
    config = peft.PrefixTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=3,
        prefix_projection=True,
        encoder_hidden_size=6,
        num_layers=2,
        token_dim=32,
        num_attention_heads=4,
    )
    encoder, tensors = peft.PrefixEncoder(config), on.state_dict()
    common = "shared.prefix.width 32"
    encoder.embedding.weight.data.copy_(tensors[f"{common}.embedding"])
    encoder.transform[0].weight.data.copy_(tensors[f"{common}.inner.weight"])
    encoder.transform[0].bias.data.copy_(tensors[f"{common}.inner.bias"])
    last = encoder.transform[2]
    for tensor in ("weight", "bias"):
        rows = [
            tensors[f"layers.{layer}.prefix.self.{name}.{tensor}"]
            for layer in LAYERS
            for name in ("key", "value")
        ]
        getattr(last, tensor).data.copy_(torch.cat(rows))
    expected = encoder(torch.arange(3)).view(3, 2, 2, 32)
    plain = ours("prefix", length=3)
    state = {
        f"layers.{layer}.prefix.self.{name}": expected[:, layer, n]
        for layer in LAYERS
        for n, name in enumerate(("key", "value"))
    }
    plain.load_state_dict(state)
    batch = inputs("bert")
    assert torch.allclose(logits(on.model, batch), logits(plain.model, batch), atol=1e-5)
    trained = sum(weight.numel() for weight in on.trainable().values())
    assert trained == sum(weight.numel() for weight in encoder.parameters())
