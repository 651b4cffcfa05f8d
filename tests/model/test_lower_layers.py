from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.core.settings import BackboneSettings
from autopeft.method.attach import attach
from autopeft.method.sites import layers_of
from autopeft.model.backbone import load_backbone
from autopeft.model.lower_layers import can_start_above, enter, started_at
from tests import backbones
from tests.backbones import LAYERS, inputs, logits, tiny
from tests.minilm import MINILM

ONE_STACK = (
    "bert",
    "roberta",
    "distilbert",
    "gpt2",
    "llama",
    "qwen2",
    "mistral",
    "gpt_neox",
    "bloom",
    "falcon",
    "mpnet",
    "phi3",
    "vit",
    "deberta-v2",
)
OTHERS = ("t5", "bart", "albert")
# What runs before the first layer, where it has dropout, and the names of the dropout rates.
BEFORE = {
    "bert": ("bert.embeddings", ("hidden_dropout_prob", "attention_probs_dropout_prob")),
    "distilbert": ("distilbert.embeddings", ("dropout", "attention_dropout")),
    "gpt2": ("transformer.drop", ("resid_pdrop", "embd_pdrop", "attn_pdrop")),
}


def above(depth: int, layers: int = LAYERS) -> PeftConfig:
    """LoRA in every layer from `depth`."""
    options = {"targets": ("q", "v"), "r": 4, "lora_alpha": None, "lora_dropout": 0.0}
    return PeftConfig.of([Placement.of("lora", range(depth, layers), options)])


def gradients(model: Any, batch: dict[str, Tensor], config: PeftConfig) -> list[Tensor]:
    """Logits and the gradients of every trained tensor, none of which starts at zero."""
    attached = attach(model, config)
    for weight in attached.trainable().values():
        weight.data.add_(0.1)
    try:
        found = logits(model, batch)
        (found.float() * torch.linspace(-1, 1, found.shape[-1])).sum().backward()
        return [found.detach(), *(w.grad for w in attached.trainable().values())]
    finally:
        attached.detach()


def equal(left: list[Tensor], right: list[Tensor], real: Tensor | None = None) -> None:
    """Bit for bit; logits of padding, which are no result, are left out."""
    assert len(left) == len(right) > 1
    if real is not None and left[0].dim() == 3:
        left[0], right[0] = left[0][real], right[0][real]
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one, other)
    assert any(g.abs().sum() > 0 for g in left[1:])


@pytest.mark.parametrize("name", ONE_STACK)
def test_logits_and_gradients_are_those_of_the_whole_model(name: str) -> None:
    model, batch = tiny(name), inputs(name)
    assert can_start_above(model)
    wanted = gradients(model, batch, above(1))
    hidden = enter(model, 1, batch)
    assert not hidden.requires_grad
    with started_at(model, 1, hidden):
        equal(gradients(model, batch, above(1)), wanted)
    equal(gradients(model, batch, above(1)), wanted)


@pytest.mark.parametrize("name", ONE_STACK)
def test_the_head_alone_runs_above_the_last_layer(name: str) -> None:
    model, batch = tiny(name), inputs(name)
    wanted, hidden = logits(model, batch), enter(model, LAYERS, batch)
    with started_at(model, LAYERS, hidden):
        assert torch.equal(logits(model, batch), wanted)


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "gpt2", "llama"])
def test_padding_need_not_be_kept(name: str) -> None:
    model, batch = tiny(name), inputs(name)
    real = batch["attention_mask"].bool()
    weights = gradients(model, batch, above(1))[1:]
    hidden = enter(model, 1, batch) * real[..., None]
    with torch.no_grad():
        wanted = logits(model, batch)
        with started_at(model, 1, hidden):
            found = logits(model, batch)
    assert len(weights) == 4
    equal([found, *weights], [wanted, *weights], real)


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_do_not_qualify(name: str) -> None:
    model = tiny(name)
    assert not can_start_above(model)
    with pytest.raises(AttachError, match="cannot start above"):
        enter(model, 1, inputs(name))
    with pytest.raises(AttachError, match="cannot start above"):  # noqa: SIM117
        with started_at(model, 1, torch.zeros(3, 8, 32)):
            pass


def test_a_position_bias_that_the_first_layer_hands_on_is_noticed() -> None:
    options = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4}
    model = tf.T5ForTokenClassification(tf.T5Config(num_layers=LAYERS, **options)).eval()
    assert not can_start_above(model)


def test_tokens_that_see_padding_are_noticed() -> None:
    config = tf.FNetConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, intermediate_size=48)
    assert not can_start_above(tf.FNetForSequenceClassification(config).eval())


class _Remembering(nn.Module):
    """Adds a little of what another layer returned."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor | None = None

    def keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.seen = output

    def add(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output if self.seen is None else output + 1e-3 * self.seen


def test_a_layer_that_looks_past_its_input_is_noticed() -> None:
    model, memory = tiny("bert", num_hidden_layers=4), _Remembering()
    layers = [model.get_submodule(layer.path) for layer in layers_of(model)]
    layers[0].intermediate.register_forward_pre_hook(lambda m, args: memory.keep(m, (), args[0]))
    layers[2].output.register_forward_hook(memory.add)
    assert not can_start_above(model)


@pytest.mark.parametrize("name", BEFORE)
def test_everything_below_is_without_dropout(name: str) -> None:
    before, rates = BEFORE[name]
    model, batch = tiny(name, **dict.fromkeys(rates, 0.3)), inputs(name)
    lower = [model.get_submodule(layers_of(model)[0].path), model.get_submodule(before)]
    assert can_start_above(model)
    model.train()
    for module in lower:
        module.eval()
    torch.manual_seed(0)
    wanted = gradients(model, batch, above(1))
    model.train()
    hidden = enter(model, 1, batch)
    assert all(module.training for module in model.modules())
    torch.manual_seed(0)
    with started_at(model, 1, hidden):
        equal(gradients(model, batch, above(1)), wanted)
    assert all(module.training for module in model.modules())
    torch.manual_seed(0)
    assert not torch.equal(gradients(model, batch, above(1))[0], wanted[0])


@pytest.mark.parametrize("name", ["bert", "llama", "deberta-v2"])
def test_upper_layers_may_be_checkpointed(name: str) -> None:
    model, batch = tiny(name), inputs(name)
    wanted = gradients(model, batch, above(1))
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.disable_input_require_grads()
    model.train()
    attached = attach(model, above(1))
    for weight in attached.trainable().values():
        weight.data.add_(0.1)
    with started_at(model, 1, enter(model, 1, batch)):
        found = logits(model, batch)
    (found * torch.linspace(-1, 1, found.shape[-1])).sum().backward()
    grads = [weight.grad for weight in attached.trainable().values()]
    attached.detach()
    equal([found.detach(), *grads], wanted)


def test_nothing_below_runs() -> None:
    model, batch, ran = tiny("bert"), inputs("bert"), []
    assert can_start_above(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda m, args, output, name=name: ran.append(name))
    hidden = enter(model, 1, batch)
    assert ran
    assert all("layer.0." in name for name in ran)
    ran.clear()
    with started_at(model, 1, hidden):
        logits(model, batch)
    assert ran
    assert not any("layer.0." in name for name in ran)


def test_the_model_is_left_as_it_was() -> None:
    model, batch = tiny("bert"), inputs("bert")
    layer = model.get_submodule(layers_of(model)[0].path)
    own = layer.forward
    layer.forward = own
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    with pytest.raises(KeyError), started_at(model, 2, enter(model, 1, batch)):
        raise KeyError
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before
    assert layer.forward is own


@pytest.mark.parametrize("depth", [0, LAYERS + 1])
def test_a_depth_that_the_model_lacks_is_refused(depth: int) -> None:
    with pytest.raises(AttachError, match="depth must be from 1 to 2"):
        enter(tiny("bert"), depth, inputs("bert"))


@pytest.mark.parametrize("settings", [{"dtype": "bfloat16"}, {"quantization": "nf4"}])
def test_other_forms_of_a_real_backbone_are_exact(settings: Any) -> None:
    model = load_backbone(
        MINILM, "text-classification", BackboneSettings(**settings), n_labels=2, device="cpu"
    ).model
    assert can_start_above(model)
    ids = torch.randint(1000, 2000, (4, 12), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    wanted = gradients(model, batch, above(3, 6))
    with started_at(model, 3, enter(model, 3, batch)):
        equal(gradients(model, batch, above(3, 6)), wanted)


def test_int8_does_not_qualify() -> None:
    settings = BackboneSettings(quantization="int8")
    backbone = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    assert not can_start_above(backbone.model)


@pytest.mark.parametrize("name", [*ONE_STACK, *OTHERS])
def test_a_model_without_weights_is_judged_alike(name: str) -> None:
    with torch.device("meta"):
        model = type(tiny(name))(tiny(name).config).eval()
    returns_more = {"bloom"}  # attention weights that nobody reads
    assert can_start_above(model) is (name in ONE_STACK and name not in returns_more)


def test_a_model_without_weights_starts_above_too() -> None:
    with torch.device("meta"):
        model = type(tiny("bert"))(tiny("bert").config).eval()
    batch = {"input_ids": torch.zeros(3, 8, dtype=torch.int64, device="meta")}
    hidden = enter(model, 1, batch)
    assert hidden.shape == (3, 8, 32)
    with started_at(model, 1, hidden):
        assert backbones.logits(model, batch).shape == (3, 2)
