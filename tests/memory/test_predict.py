from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError, StudyError
from autopeft.core.settings import BackboneSettings
from autopeft.memory.predict import PARTS, predict_memory
from autopeft.method.attach import attach
from autopeft.method.registry import METHODS
from autopeft.method.sites import shape_of
from autopeft.model.backbone import Backbone, head_of, load_backbone, meta_backbone
from autopeft.model.head import HEADS
from autopeft.model.quicken import quicken
from tests.memory.allocator import measure_memory, measured_peak
from tests.minilm import MINILM

LORA = ("lora", {"targets": ("q", "v"), "r": 8, "lora_alpha": None, "lora_dropout": 0.0})
DROPPED = ("lora", {**LORA[1], "targets": ("k", "o", "up", "down"), "lora_dropout": 0.1})
SEQUENTIAL = {"at": "both", "size": 32, "activation": "relu", "bias": True, "scale": 1.0}
PARALLEL = {**SEQUENTIAL, "form": "parallel", "at": "ffn", "activation": "gelu"}
ADAPTERS = (("adapter", {**SEQUENTIAL, "form": "sequential"}), ("adapter", PARALLEL))
_ABOVE = ("adapter", "bitfit", "lora", "prefix")
MIXES: Mapping[str, tuple[tuple[str, Mapping[str, Any]], ...]] = {
    "lora": (LORA,),
    "lora-dropout": (DROPPED,),
    "sequential": ADAPTERS[:1],
    "parallel": ADAPTERS[1:],
    "prefix": (("prefix", {"length": 8}),),
    "bitfit": (("bitfit", {}),),
    "head": (),
    **{name: ((name, METHODS[name].example),) for name in sorted(METHODS) if name not in _ABOVE},
    "pissa": (("lora", {**LORA[1], "init_lora_weights": "pissa"}),),
    "all": (LORA, ADAPTERS[1], ("prefix", {"length": 8}), ("bitfit", {})),
}
AT_LINEARS = {"targets": ("q", "up"), "r": 2}
SIZE = {"batch_size": 4, "sequence_length": 64}


def mix(name: str, layers: range = range(6), **form: Any) -> PeftConfig:
    placed = (Placement.of(method, layers, options) for method, options in MIXES[name])
    return PeftConfig.of(placed, backbone=form)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> tuple[Backbone, Backbone]:
    """MiniLM without weights, and with its own."""
    settings = BackboneSettings(dtype=request.param)
    real = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    return meta_backbone(MINILM, settings), real


@pytest.fixture(scope="module")
def minilm() -> Backbone:
    return meta_backbone(MINILM, BackboneSettings(dtype="float32"))


EVERY = [("float32", name) for name in MIXES]
HALF = [("bfloat16", name) for name in ("lora-dropout", "dora", "hira", "ia3", "loha", "all")]


@pytest.mark.parametrize(("pair", "name"), [*EVERY, *HALF], indirect=["pair"])
def test_equals_the_allocator(pair: tuple[Backbone, Backbone], name: str) -> None:
    meta, real = pair
    predicted = predict_memory(meta, mix(name), **SIZE, device="cpu")
    assert predicted.peak == pytest.approx(measure_memory(real, [mix(name)], **SIZE), rel=2e-3)


@pytest.mark.parametrize(
    ("method", "usual", "options"),
    [
        ("lora", AT_LINEARS, {"init_lora_weights": "eva"}),
        ("sparse", AT_LINEARS, {"select": "fisher", "num_samples": 2}),
        ("sparse-adapter", {"size": 256, "select": "random"}, {"select": "snip"}),
    ],
)
def test_a_start_from_examples_may_take_more_than_a_step(
    minilm: Backbone, method: str, usual: dict[str, Any], options: dict[str, Any]
) -> None:
    """Fisher information takes a number of each frozen element, which one example does not."""
    real = load_backbone(
        MINILM, "text-classification", BackboneSettings(dtype="float32"), n_labels=2, device="cpu"
    )
    config = PeftConfig.of([Placement.of(method, range(6), {**usual, **options})])
    small = {"batch_size": 1, "sequence_length": 16}
    predicted = predict_memory(minilm, config, **small, device="cpu")
    plain = PeftConfig.of([Placement.of(method, range(6), usual)])
    step = predict_memory(minilm, plain, **small, device="cpu")
    assert predicted.peak == pytest.approx(measure_memory(real, [config], **small), rel=1e-3)
    assert (predicted.peak > 1.05 * step.peak) == (method == "sparse")


@pytest.mark.parametrize("padded", [True, False])
def test_equals_the_allocator_with_checkpointing(padded: bool) -> None:
    settings = BackboneSettings(dtype="float32", gradient_checkpointing=True)
    real = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    meta = meta_backbone(MINILM, BackboneSettings(dtype="float32"))
    config = mix("all", gradient_checkpointing=True)
    predicted = predict_memory(meta, config, **SIZE, device="cpu", padded=padded)
    assert predicted.peak == pytest.approx(
        measure_memory(real, [config], **SIZE, padded=padded), rel=2e-3
    )


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equals_the_allocator_quantized(minilm: Backbone, quantization: Any, dtype: Any) -> None:
    form = {"dtype": dtype, "quantization": quantization}
    settings = BackboneSettings(dtype=dtype, quantization=quantization)
    real = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    config = mix("all", **form)
    predicted = predict_memory(minilm, config, **SIZE, device="cpu")
    assert predicted.peak == pytest.approx(measure_memory(real, [config], **SIZE), rel=2e-3)


ENCODER = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = {**ENCODER, "intermediate_size": 512, "vocab_size": 4000}
T5 = {"d_model": 256, "d_kv": 64, "d_ff": 512, "num_layers": 2, "num_heads": 4}
GPT2 = {"n_embd": 256, "n_layer": 2, "n_head": 4, "vocab_size": 4000}
GENERATORS: Mapping[str, tuple[Any, Any]] = {
    "llama": (tf.AutoModelForCausalLM, tf.LlamaConfig(**DECODER, num_key_value_heads=2)),
    "gpt2": (tf.AutoModelForCausalLM, tf.GPT2Config(**GPT2)),
    "t5": (
        tf.AutoModelForSeq2SeqLM,
        tf.T5Config(**T5, vocab_size=4000, decoder_start_token_id=0),
    ),
}


def both(auto: Any, config: Any) -> tuple[Backbone, Backbone]:
    """A backbone of random weights: without them, and with them."""
    config.use_cache = False
    task = "seq2seq-lm" if config.is_encoder_decoder else "causal-lm"
    made = []
    for device in ("meta", "cpu"):
        with torch.device(device):
            model = auto.from_config(config).eval()
        parts = (
            head_of(model),
            HEADS[task].criterion,
            shape_of(model),
            torch.float32,
            torch.device(device),
        )
        made.append(Backbone(model, None, *parts))
    return made[0], made[1]


def measured_generation(backbone: Backbone, config: PeftConfig, n_batches: int = 1) -> int:
    """The peak of a step of a language model, on ids, a mask with one gap, and targets."""
    model, criterion = backbone.model, backbone.criterion
    ids = torch.ones(SIZE["batch_size"], SIZE["sequence_length"], dtype=torch.long)
    batch, targets = {"input_ids": ids, "attention_mask": ids.clone()}, ids.clone()
    batch["attention_mask"][0, -1] = 0
    held = [*model.parameters(), *model.buffers(), *batch.values(), targets]
    with ExitStack() as quickened:
        quicken(model, "cpu", quickened)
        attached = attach(model, config)
        quickened.callback(attached.detach)
        weights = list(attached.trainable().values())
        optimizer = torch.optim.AdamW(weights, fused=True)
        model.train()

        def step() -> None:
            for _ in range(n_batches):
                outputs = None
                outputs = model(**criterion.inputs(model, batch, targets)).logits
                criterion.losses(outputs, targets).mean().backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        step()
        moments = [v for state in optimizer.state.values() for v in state.values()]
        return measured_peak(step, [*held, *weights, *moments])


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("method", ["lora", "prefix", "parallel"])
def test_equals_the_allocator_for_generation(name: str, method: str) -> None:
    meta, real = both(*GENERATORS[name])
    config = mix(method, range(len(meta.shape.layers)))
    predicted = predict_memory(meta, config, **SIZE, device="cpu")
    assert predicted.peak == pytest.approx(measured_generation(real, config), rel=1e-2)


@pytest.mark.parametrize("name", GENERATORS)
def test_equals_the_allocator_with_accumulation(name: str) -> None:
    """What is trained is big beside a micro-batch, so that its gradients matter."""
    meta, real = both(*GENERATORS[name])
    options = {**ADAPTERS[0][1], "size": 512}
    config = PeftConfig.of([Placement.of("adapter", range(len(meta.shape.layers)), options)])
    usual = predict_memory(meta, config, **SIZE, device="cpu").peak
    assert usual == pytest.approx(measured_generation(real, config), rel=1e-2)
    config = replace(config, train=(("gradient_accumulation_steps", 3),))
    accumulated = predict_memory(meta, config, **SIZE, device="cpu").peak
    assert accumulated == pytest.approx(measured_generation(real, config, 3), rel=1e-2)
    assert accumulated > 1.05 * usual


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("name", MIXES)
def test_parts_sum_to_the_peak(minilm: Backbone, name: str, device: str) -> None:
    memory = predict_memory(minilm, mix(name), **SIZE, device=device)
    assert tuple(memory.parts) == PARTS
    assert sum(memory.parts.values()) == memory.peak
    assert all(size > 0 for part, size in memory.parts.items() if part != "gradients")
    assert min(memory.parts.values()) >= 0


def test_parts_are_those_of_closed_forms(minilm: Backbone) -> None:
    parts = predict_memory(minilm, mix("lora"), **SIZE, device="cpu").parts
    frozen = [*minilm.model.parameters(), *minilm.model.buffers()]
    head = [p for m in minilm.modules_to_save for p in minilm.model.get_submodule(m).parameters()]
    trained = 6 * 2 * 8 * (384 + 384) + sum(p.numel() for p in head)
    tensors = 6 * 2 * 2 + len(head)
    assert parts["backbone"] == sum(t.numel() * t.element_size() for t in frozen)
    assert parts["peft"] == 4 * trained
    assert parts["optimizer"] == 8 * trained + 4 * tensors
    assert parts["batch"] == 8 * (3 * 4 * 64 + 4)


def test_sizes_on_cuda_are_whole_blocks(minilm: Backbone) -> None:
    memory = predict_memory(minilm, mix("all"), **SIZE, device="cuda")
    assert all(size % 512 == 0 for size in memory.parts.values())


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_checkpointing_lowers_the_peak(minilm: Backbone, device: str) -> None:
    size = {"batch_size": 32, "sequence_length": 128, "device": device}
    usual = predict_memory(minilm, mix("lora"), **size).peak
    checkpointed = predict_memory(minilm, mix("lora", gradient_checkpointing=True), **size).peak
    assert checkpointed < usual / 2


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["lora", "all"])
def test_offloading_leaves_one_layer(minilm: Backbone, name: str, checkpointing: bool) -> None:
    """Activations on the device are those of the layer at work; a CPU is its own host."""
    size = {"batch_size": 32, "sequence_length": 128}
    form = {"gradient_checkpointing": checkpointing}
    usual, moved = mix(name, **form), mix(name, **form, activation_offloading=True)
    there, kept = (predict_memory(minilm, c, **size, device="cuda").parts for c in (usual, moved))
    assert kept["activations"] < there["activations"] / (1.15 if checkpointing else 3)
    moving = {"activations": 0, "gradients": 0}
    assert {**kept, **moving} == {**there, **moving}
    on_cpu = [
        predict_memory(minilm, config, **size, device="cpu").peak for config in (usual, moved)
    ]
    assert on_cpu[0] == on_cpu[1]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_quantized_backbones_are_smaller(device: str) -> None:
    meta, _ = both(*GENERATORS["llama"])
    half, int8, nf4 = (
        predict_memory(
            meta,
            mix("lora", range(2), dtype="bfloat16", quantization=quantization),
            **SIZE,
            device=device,
        ).parts["backbone"]
        for quantization in ("none", "int8", "nf4")
    )
    linears = [m for m in meta.model.model.layers.modules() if isinstance(m, nn.Linear)]
    elements = sum(linear.weight.numel() for linear in linears)
    rows = sum(linear.out_features for linear in linears)
    assert half - int8 == elements - 4 * rows
    scales = elements / 64 * (1 + 4 / 256)
    assert half - nf4 == pytest.approx(1.5 * elements - scales, rel=0.03)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_grows_with_batch_and_length(minilm: Backbone, device: str) -> None:
    peaks = [
        predict_memory(minilm, mix("all"), batch_size=b, sequence_length=s, device=device).peak
        for b, s in ((1, 16), (2, 16), (2, 33), (16, 33), (16, 128))
    ]
    assert peaks == sorted(set(peaks))


def test_memory_of_long_texts_on_cuda_is_not_quadratic(minilm: Backbone) -> None:
    config = mix("lora", dtype="bfloat16")
    short, long = (
        predict_memory(minilm, config, batch_size=2, sequence_length=s, device="cuda", padded=False)
        for s in (256, 512)
    )
    assert long.parts["activations"] < 2.1 * short.parts["activations"]


def _picture(backbone: Backbone) -> dict[str, Any]:
    model = backbone.model
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "tensors": {name: (id(t), t.dtype, t.requires_grad) for name, t in tensors.items()},
        "modules": {
            name: (type(m), m.training, len(m._forward_hooks), len(m._forward_pre_hooks))
            for name, m in model.named_modules()
        },
        "config": model.config.to_dict(),
        "checkpointing": model.is_activation_checkpointing,
        "attention": model.config._attn_implementation,
    }


FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"gradient_checkpointing": True},
    {"activation_offloading": True},
    {"dtype": "bfloat16", "quantization": "nf4"},
)


@pytest.mark.parametrize("form", FORMS)
def test_leaves_the_backbone_as_it_was(minilm: Backbone, form: dict[str, Any]) -> None:
    before = _picture(minilm)
    first = predict_memory(minilm, mix("all", **form), **SIZE)
    assert _picture(minilm) == before
    assert predict_memory(minilm, mix("all", **form), **SIZE) == first


@pytest.mark.parametrize("form", FORMS)
def test_leaves_everything_as_it_was_after_an_error(minilm: Backbone, form: dict[str, Any]) -> None:
    before = _picture(minilm)
    patched = (nn.functional.scaled_dot_product_attention, nn.functional.dropout)
    with pytest.raises(AttachError):
        predict_memory(minilm, mix("lora", range(9), **form), **SIZE)
    with pytest.raises(StudyError, match="cannot be told before training"):
        predict_memory(minilm, mix("all", **form), batch_size=2, sequence_length=100_000)
    assert _picture(minilm) == before
    assert (nn.functional.scaled_dot_product_attention, nn.functional.dropout) == patched
    assert torch.overrides._len_torch_function_stack() == 0
    assert torch._C._len_torch_dispatch_stack() == 0


def test_refuses_what_it_cannot_predict(minilm: Backbone) -> None:
    with pytest.raises(StudyError, match="unknown device 'gpu'"):
        predict_memory(minilm, mix("lora"), **SIZE, device="gpu")
    _, real = both(*GENERATORS["llama"])
    with pytest.raises(StudyError, match="without weights"):
        predict_memory(real, mix("lora", range(2)), **SIZE)


def test_a_folder_with_only_a_configuration_serves(tmp_path: Path) -> None:
    tf.LlamaConfig(**DECODER, architectures=["LlamaForSequenceClassification"]).save_pretrained(
        tmp_path
    )
    backbone = meta_backbone(str(tmp_path), BackboneSettings(), head="text-classification")
    memory = predict_memory(backbone, mix("lora", range(2)), **SIZE)
    assert backbone.model.config.pad_token_id is None
    logits = math.prod((*SIZE.values(), 4))
    assert memory.parts["activations"] > logits
