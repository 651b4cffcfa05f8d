from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from autopeft.core.errors import StudyError
from autopeft.core.settings import BackboneSettings
from autopeft.model.backbone import (
    Backbone,
    check_checkpoint,
    head_of,
    load_backbone,
    load_tokenizer,
    meta_backbone,
)
from autopeft.model.hub import locate
from autopeft.model.positions import positions
from autopeft.model.precision import fast_dtype, has_fast_bfloat16
from tests import backbones
from tests.minilm import MINILM
from tests.small_models import save_translator, words_tokenizer

FLOAT32 = BackboneSettings(dtype="float32")


def load(reference: str = MINILM, settings: BackboneSettings = FLOAT32) -> Backbone:
    return load_backbone(reference, "text-classification", settings, n_labels=3, device="cpu")


@pytest.fixture
def minilm(tmp_path: Path) -> Path:
    source = locate(MINILM, "model")
    assert source is not None
    return Path(shutil.copytree(source, tmp_path / "model"))


def test_the_pretrained_model_is_loaded_with_a_head_for_the_labels() -> None:
    backbone = load()
    assert backbone.modules_to_save == ("bert.pooler", "classifier")
    assert backbone.shape.parameters == 22_713_216
    assert len(backbone.shape.layers) == 6
    assert backbone.model.config.num_labels == 3
    assert not backbone.model.training
    folder = locate(MINILM, "model")
    assert folder is not None
    published = load_file(folder / "model.safetensors")
    loaded = backbone.model.bert.state_dict()
    assert all(torch.equal(loaded[name], published[name]) for name in loaded)


def test_the_fresh_head_is_always_the_same_and_leaves_the_random_state_alone() -> None:
    torch.manual_seed(1)
    first, drawn = load().model.classifier.weight, torch.rand(1)
    torch.manual_seed(1)
    undisturbed = torch.rand(1)
    assert torch.equal(first, load().model.classifier.weight)
    assert first.std() > 0
    assert torch.equal(drawn, undisturbed)


def test_loading_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    load()
    assert capfd.readouterr() == ("", "")


def test_bfloat16_differs_from_float32_by_rounding_only() -> None:
    exact, rounded = load(), load(settings=BackboneSettings(dtype="bfloat16"))
    assert exact.reader is not None
    batch = exact.reader(["a gem of a film", "dull"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        wanted = exact.model.bert(**batch).last_hidden_state
        found = rounded.model.bert(**batch).last_hidden_state
    assert found.dtype == rounded.dtype == torch.bfloat16
    assert not torch.equal(found.float(), wanted)
    similarity = torch.cosine_similarity(found.float(), wanted, dim=-1)
    assert similarity.min() > 0.999


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantization_spares_the_head(quantization: Any) -> None:
    backbone = load(settings=BackboneSettings(quantization=quantization))
    quantized = {name for name, p in backbone.model.named_parameters() if not p.is_floating_point()}
    assert len(quantized) == 36
    assert all(name.startswith("bert.encoder.layer.") for name in quantized)
    assert backbone.shape.parameters == 22_713_216


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("tied", [True, False])
def test_quantization_spares_the_output_embeddings(quantization, tied, tmp_path) -> None:
    """Tied or not, they are what they are without it, and the model runs."""
    sizes = {"hidden_size": 64, "intermediate_size": 64}
    plain = backbones.tiny("llama", **sizes, tie_word_embeddings=tied)
    plain.save_pretrained(tmp_path)
    words_tokenizer(["<eos>", "<unk>", "<pad>", "word"], pad_token="<pad>").save_pretrained(
        tmp_path
    )
    settings = BackboneSettings(dtype="float32", quantization=quantization)
    model = load_backbone(str(tmp_path), "causal-lm", settings, n_labels=None, device="cpu").model
    assert torch.equal(model.lm_head.weight, plain.lm_head.weight)
    assert not model.model.layers[0].mlp.up_proj.weight.is_floating_point()
    batch = backbones.inputs("llama")
    ours, theirs = backbones.logits(model, batch), backbones.logits(plain, batch)
    assert 0 < (ours - theirs).abs().mean() < 0.2 * theirs.abs().mean()


def test_evaluation_changes_neither_quantized_weights_nor_their_gradients() -> None:
    backbone = load(settings=BackboneSettings(quantization="nf4"))
    model, ids = backbone.model, torch.arange(20).view(2, 10)
    embeddings = model.get_input_embeddings().weight.requires_grad_()
    grads = []
    for _ in range(2):
        model.zero_grad()
        model.train()
        torch.manual_seed(0)
        model(ids).logits.float().sum().backward()
        grads.append(embeddings.grad.clone())
        with torch.inference_mode():
            model.eval()(ids)
    assert torch.equal(*grads)
    assert grads[0].abs().sum() > 0


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    grads = []
    for checkpointing in (False, True):
        settings = BackboneSettings(dtype="float32", gradient_checkpointing=checkpointing)
        model = load(settings=settings).model
        assert model.is_gradient_checkpointing is checkpointing
        model.train()
        torch.manual_seed(0)
        model(torch.arange(20).view(2, 10)).logits.sum().backward()
        grads.append(model.bert.encoder.layer[0].output.dense.weight.grad)
    torch.testing.assert_close(*grads)


HEADS = {
    "bert": ("bert.pooler", "classifier"),
    "roberta": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "deberta-v2": ("pooler", "classifier"),
    "vit": ("classifier",),
    "gpt2": (),
    "llama": (),
    "t5": (),
    "bart": (),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_what_lies_outside_the_pretrained_part(name: str) -> None:
    model = backbones.tiny(name)
    assert head_of(model) == HEADS[name]
    if not HEADS[name]:
        return
    backbones.logits(model, backbones.inputs(name)).sum().backward()
    inside = [p for path in HEADS[name] for p in model.get_submodule(path).parameters()]
    assert all(p.grad is not None for p in inside)
    outside = {id(p) for p in model.parameters()} - {id(p) for p in model.base_model.parameters()}
    assert outside <= {id(p) for p in inside}


@pytest.mark.parametrize(
    ("config", "model", "head"),
    [
        (tf.BertConfig(), "BertForSequenceClassification", ("bert.pooler", "classifier")),
        (
            tf.BertConfig(architectures=["BertForMaskedLM"]),
            "BertForSequenceClassification",
            ("bert.pooler", "classifier"),
        ),
        (tf.LlamaConfig(architectures=["LlamaForCausalLM"]), "LlamaForCausalLM", ()),
        (
            tf.LlamaConfig(architectures=["LlamaForSequenceClassification"]),
            "LlamaForSequenceClassification",
            ("score",),
        ),
        (
            tf.T5Config(architectures=["T5ForConditionalGeneration"]),
            "T5ForConditionalGeneration",
            (),
        ),
        (tf.ViTConfig(architectures=["ViTModel"]), "ViTForImageClassification", ("classifier",)),
    ],
)
def test_a_config_alone_makes_a_model_without_weights(
    tmp_path: Path, config: tf.PreTrainedConfig, model: str, head: tuple[str, ...]
) -> None:
    config.save_pretrained(tmp_path)
    backbone = meta_backbone(str(tmp_path), BackboneSettings())
    assert type(backbone.model).__name__ == model
    assert backbone.modules_to_save == head
    assert {p.device.type for p in backbone.model.parameters()} == {"meta"}
    assert not backbone.model.config.use_cache
    assert backbone.reader is None


@pytest.mark.parametrize(
    ("vendor", "flags", "fast"),
    [
        ("AuthenticAMD", "avx512f avx512_bf16", True),
        ("AuthenticAMD", "avx512f", False),
        ("GenuineIntel", "avx512f avx512_bf16", False),
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16", True),
        ("", "fp asimd bf16", True),
        ("", "fp asimd", False),
    ],
)
def test_bfloat16_is_for_processors_that_are_faster_with_it(
    vendor: str, flags: str, fast: bool
) -> None:
    assert has_fast_bfloat16(f"vendor_id\t: {vendor}\nflags\t: fpu {flags}\n") == fast


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("auto", None, torch.bfloat16),
        ("auto", "cuda", torch.bfloat16),
        ("auto", "cpu", fast_dtype(torch.device("cpu"))),
        ("float32", "cuda", torch.float32),
    ],
)
def test_the_precision_of_a_plan(
    tmp_path: Path, dtype: Any, device: str | None, expected: torch.dtype
) -> None:
    tf.BertConfig(dtype="float16").save_pretrained(tmp_path)
    settings = BackboneSettings(dtype=dtype)
    backbone = meta_backbone(str(tmp_path), settings, device=device)
    assert {p.dtype for p in backbone.model.parameters()} == {expected} == {backbone.dtype}


def test_a_decoder_without_a_padding_token_pads_with_its_end_token(tiny_llama: Path) -> None:
    backbone = load(str(tiny_llama))
    assert backbone.reader is not None
    assert backbone.modules_to_save == ("score",)
    assert backbone.reader.pad_token == "<eos>"
    assert backbone.model.config.pad_token_id == 0


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    for make in (load, load_tokenizer):
        with pytest.raises(StudyError, match=r"^model: .*holds no config.json"):
            make(str(tmp_path))


def test_a_folder_without_weights_serves_a_plan_only(minilm: Path) -> None:
    (minilm / "model.safetensors").unlink()
    assert meta_backbone(str(minilm), FLOAT32).shape.parameters == 22_713_216
    with pytest.raises(StudyError, match=r"^model: .*holds no weights"):
        load(str(minilm))


def test_a_tokenizer_without_a_vocabulary_is_refused(minilm: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (minilm / name).unlink()
    with pytest.raises(StudyError, match=r"^model: .*has no vocabulary"):
        load(str(minilm))


def test_a_text_is_cut_at_the_positions_of_the_model(tiny_llama: Path) -> None:
    assert load_tokenizer(str(tiny_llama)).model_max_length == 2048
    assert load_tokenizer(MINILM).model_max_length == 512


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "gpt2", "opt"])
def test_the_positions_of_a_model_are_those_that_run(name: str) -> None:
    options = {"pad_token_id": 5} if name == "roberta" else {}
    model = backbones.tiny(name, **options)
    most = positions(model)
    assert most == {"roberta": 64 - 6, "mpnet": 64 - 2}.get(name, 64)
    ids = torch.full((1, most + 1), 7)
    model(input_ids=ids[:, 1:])
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        model(input_ids=ids)


def test_a_model_may_have_no_limit_of_positions(tmp_path: Path) -> None:
    config = tf.XLNetConfig(vocab_size=9, d_model=8, n_layer=1, n_head=1, d_inner=8)
    with torch.device("meta"):
        assert positions(tf.XLNetForSequenceClassification(config)) == sys.maxsize


def test_two_stacks_may_have_positions_of_their_own() -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 9}
    limits = {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 32}
    with torch.device("meta"):
        model = tf.LEDForConditionalGeneration(tf.LEDConfig(**sizes, **limits))
        bart = tf.BartForConditionalGeneration(tf.BartConfig(**sizes, max_position_embeddings=16))
    assert [positions(model), positions(model, writes=True)] == [64, 32]
    assert [positions(bart), positions(bart, writes=True)] == [16, 16]


def test_a_tokenizer_that_stops_before_its_model_goes_on(tmp_path: Path) -> None:
    folder = save_translator(tmp_path, ["<eos>", "<unk>", "one"], "t5")
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    assert load_tokenizer(str(folder)).model_max_length == sys.maxsize


def test_a_tokenizer_for_roberta_stops_before_its_padding_rows(tiny_llama: Path) -> None:
    (tiny_llama / "config.json").unlink()
    config = tf.RobertaConfig(vocab_size=7, max_position_embeddings=66, num_hidden_layers=1)
    config.save_pretrained(tiny_llama)
    assert load_tokenizer(str(tiny_llama)).model_max_length == 64


def test_a_tokenizer_without_a_padding_and_an_end_token_is_refused(tiny_llama: Path) -> None:
    tokenizer = tf.AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tiny_llama)
    with pytest.raises(StudyError, match=r"^model: .* has neither a padding nor an end token"):
        load_tokenizer(str(tiny_llama))


def test_a_checkpoint_that_lacks_part_of_the_backbone_is_refused(minilm: Path) -> None:
    weights = load_file(minilm / "model.safetensors")
    del weights["encoder.layer.3.output.dense.weight"]
    save_file(weights, minilm / "model.safetensors", metadata={"format": "pt"})
    lacks = r"^model: .*lacks 1 tensors.*layer\.3\.output\.dense"
    with pytest.raises(StudyError, match=lacks):
        load(str(minilm))
    with pytest.raises(StudyError, match=lacks):
        check_checkpoint(str(minilm), meta_backbone(str(minilm), FLOAT32))


def test_a_pooler_that_the_checkpoint_lacks_is_drawn_anew(minilm: Path) -> None:
    weights = load_file(minilm / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    save_file(kept, minilm / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(
        load(str(minilm)).model.bert.pooler.dense.weight,
        load(str(minilm)).model.bert.pooler.dense.weight,
    )


def test_a_model_of_another_kind_does_not_serve_the_task(tmp_path: Path) -> None:
    tf.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(StudyError, match=r"^model: .*'vit' does not serve 'text-classification'"):
        meta_backbone(str(tmp_path), FLOAT32, head="text-classification")


def test_an_unknown_task_type_names_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"^task.type: .*did you mean 'causal-lm'"):
        meta_backbone(MINILM, FLOAT32, head="causal-ml")


def test_a_broken_config_is_reported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StudyError, match=r"^model: .*cannot be used"):
        meta_backbone(str(tmp_path), FLOAT32)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StudyError, match=r"^model: .*cannot be used"):
        meta_backbone(str(tmp_path), FLOAT32)


@pytest.mark.usefixtures("offline")
def test_an_unreachable_hub_is_reported() -> None:
    with pytest.raises(StudyError, match=r"^model: 'nobody/nothing' is no local path, and the hub"):
        meta_backbone("nobody/nothing", FLOAT32)
