"""The code of a card, run beside its folder: a batch is answered as each of its rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from PIL import Image
from torch import Tensor

from autopeft.core.config import PeftConfig
from autopeft.core.settings import BackboneSettings
from autopeft.exporter import Trained
from autopeft.method.attach import attach
from autopeft.model.backbone import load_backbone
from autopeft.model.head import Head
from autopeft.task.registry import task_of
from tests.contracts.exporter import PREFIX, adapter, exported, lora
from tests.contracts.method import stir
from tests.exports import run_card
from tests.small_models import save_decoder, save_translator, save_viewer, words_tokenizer

TEXTS = "One text. Another one, which is a little longer. question? answer. question. with its"
WORDS = ["<eos>", "<unk>", *dict.fromkeys(f"{TEXTS} A text answer, <user> <bot>".split())]
CHAT = (
    "{% for m in messages %}{{ '<user> ' + m['content'] + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot> ' }}{% endif %}"
)
LABELS = ("no", "perhaps", "yes")
LORA = PeftConfig.of([lora([0, 1])])
MIX = PeftConfig.of([lora([0, 1]), adapter([1]), PREFIX])


def encoder(folder: Path) -> Path:
    words_tokenizer(WORDS, pad_token="<eos>").save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = tf.BertConfig(
        vocab_size=len(WORDS), num_attention_heads=4, initializer_range=0.3, **sizes
    )
    tf.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def decoder(folder: Path, chat: str | None = None) -> Path:
    tokenizer = words_tokenizer(WORDS)
    tokenizer.chat_template = chat
    return save_decoder(folder, tokenizer, initializer_range=0.3)


def talker(folder: Path) -> Path:
    return decoder(folder, CHAT)


def older_decoder(folder: Path) -> Path:
    """With positions that are learned."""
    words_tokenizer(WORDS).save_pretrained(folder)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=len(WORDS), **sizes, **ends)).save_pretrained(
        folder
    )
    return folder


def translator(folder: Path) -> Path:
    return save_translator(folder, WORDS, "t5")


def viewer(folder: Path) -> Path:
    return save_viewer(folder)


def head(type: str, **options: Any) -> Head:
    return task_of({"type": type, "data": "x", **options}).head


CLASSES = head("text-classification")
MODELS: Mapping[str, tuple[Callable[[Path], Path], Head]] = {
    "classes": (encoder, CLASSES),
    "several classes": (encoder, head("text-classification", problem="multi_label")),
    "numbers": (encoder, head("text-classification", problem="regression")),
    "classes of a decoder": (decoder, CLASSES),
    "tokens": (encoder, head("token-classification")),
    "choices": (encoder, head("multiple-choice", n_choices=2)),
    "spans": (encoder, head("question-answering")),
    "images": (viewer, head("image-classification")),
    "texts": (decoder, head("causal-lm")),
    "texts of learned positions": (older_decoder, head("causal-lm")),
    "conversations": (talker, head("causal-lm")),
    "translations": (translator, head("seq2seq-lm")),
}
FEW = ("classes", "choices", "images", "conversations", "translations")
CASES = [
    *(("native", name) for name in MODELS),
    *((form, name) for form in ("peft", "merged") for name in FEW),
    *(("onnx", name) for name in ("choices", "images", "texts", "translations")),
]


def trained(name: str, config: PeftConfig, folder: Path) -> Trained:
    """Far from where it starts, on a checkpoint in `folder`."""
    save, task = MODELS[name]
    n_labels = 1 if name == "numbers" else len(LABELS)
    settings = BackboneSettings(dtype="float32")
    on = load_backbone(str(save(folder)), task, settings, n_labels=n_labels, device="cpu")
    if task.n_labels:
        on.model.config.id2label = dict(enumerate(LABELS[: on.model.config.num_labels]))
    attached = attach(on.model, config, modules_to_save=on.modules_to_save)
    stir(attached)
    state = {name: tensor.clone() for name, tensor in attached.state_dict().items()}
    attached.detach()
    return Trained(on, config, state)


def alone(asked: Mapping[str, Any], reader: Any) -> Iterator[Mapping[str, Tensor]]:
    """The inputs of each row of what a card asks about."""
    if "images" in asked:
        yield from (reader([image], return_tensors="pt") for image in asked["images"])
    elif "choices" in asked:
        for choice in asked["choices"]:
            pair = reader(asked["question"], choice, return_tensors="pt")
            yield {name: tensor[None] for name, tensor in pair.items()}
    elif "conversations" in asked:
        for turns in asked["conversations"]:
            options = {"return_tensors": "pt", "return_dict": True}
            yield reader.apply_chat_template(turns, add_generation_prompt=True, **options)
    else:
        columns = (asked[name] for name in ("questions", "texts") if name in asked)
        for texts in zip(*columns, strict=True):
            yield reader(*texts, return_tensors="pt")


@pytest.mark.parametrize(("form", "name"), CASES)
def test_a_batch_is_answered_as_its_rows_are(form: str, name: str, tmp_path: Path) -> None:
    is_mix = form == "native" or (form, name) == ("onnx", "translations")
    done = trained(name, MIX if is_mix else LORA, tmp_path / "base")
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "an-image.png")
    said = run_card(exported(form, done, tmp_path / "out"))
    reader = done.backbone.reader
    if name in ("classes", "images"):
        assert {*said["labels"]} <= {*LABELS}
    if "ids" in said:
        settings = said["model"].generation_config
        assert (settings.pad_token_id, settings.use_cache) == (reader.pad_token_id, True)
    with done.attached(), torch.no_grad():
        for row, inputs in enumerate(alone(said, reader)):
            if "ids" in said:
                assert said["answers"][row] == answer(done, inputs)
                continue
            if done.model.config.is_encoder_decoder:
                inputs["decoder_input_ids"] = torch.zeros(1, 1, dtype=torch.int64)
            for key, expected in done.model(**inputs).items():
                if not key.endswith("logits"):
                    continue
                given = torch.as_tensor(said["outputs"][key])
                given = given[:, row:] if name == "choices" else given[row : row + 1]
                length = expected.shape[1]
                assert (given[:, :length] - expected).abs().max() < 1e-3


def answer(done: Trained, inputs: Mapping[str, Tensor]) -> str:
    """What the model in memory says to one row."""
    model, reader = done.model, done.backbone.reader
    ids = model.generate(**inputs, max_new_tokens=20, use_cache=False)
    start = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return reader.batch_decode(ids[:, start:], skip_special_tokens=True)[0]
