"""Predicted peaks of answers against the CPU's allocator."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
import transformers as tf

from autopeft.core.config import PeftConfig
from autopeft.memory.answering import predict_answering
from autopeft.memory.predict import predict_memory
from autopeft.memory.quantities import Setting, known_quantities
from autopeft.method.member import draw
from autopeft.model.backbone import Backbone
from autopeft.model.quicken import quicken
from autopeft.task.answers import Answers
from autopeft.train.generation import generated
from autopeft.train.hidden import HiddenStates
from autopeft.train.passes import Passes
from tests.memory.allocator import measured_peak
from tests.memory.test_predict import ENCODER, GENERATORS, both, mix
from tests.small_models import words_tokenizer

LONGEST = 64
DEEP = tf.LlamaConfig(**{**ENCODER, "num_hidden_layers": 8}, intermediate_size=512, vocab_size=1000)
MODELS = {**GENERATORS, "deep": (tf.AutoModelForCausalLM, DEEP)}


def measured(
    backbone: Backbone, config: PeftConfig, batch_size: int, prompts: list[int], new_tokens: int
) -> int:
    """The peak while prompts of some lengths are answered between steps of AdamW."""
    tokenizer = words_tokenizer(["<eos>", "<unk>"], pad_token="<eos>")
    asked = [torch.ones(length, dtype=torch.long) for length in prompts]
    answers = Answers(asked, [""] * len(prompts), (), new_tokens)
    backbone = replace(backbone, reader=tokenizer)
    with ExitStack() as undo, torch.inference_mode():
        quicken(backbone.model, "cpu", undo)
        passes = Passes(backbone, 0, HiddenStates(0), form=None)
        undo.callback(passes.pack.close)
        member = draw(backbone.model, config)
        passes.pack.join(member)
        weights = list(member.trainable().values())
        moments = [torch.empty_like(weight) for weight in weights * 2]
        held = [*backbone.model.parameters(), *backbone.model.buffers(), *weights, *moments]
        rows, limit = torch.arange(len(prompts)), batch_size * LONGEST

        def answer() -> None:
            generated(passes, member, answers, rows, limit)

        answer()
        return measured_peak(answer, held)


def predicted(backbone: Backbone, config: PeftConfig, batch_size: int, new_tokens: int) -> int:
    size = {"batch_size": batch_size, "sequence_length": LONGEST}
    return predict_answering(backbone, config, **size, new_tokens=new_tokens, device="cpu").peak


@pytest.mark.parametrize(
    ("name", "method"), [*((name, "lora") for name in MODELS), ("deep", "ladder")]
)
@pytest.mark.parametrize(
    ("batch_size", "new_tokens", "prompts"),
    [(1, 64, [64]), (4, 32, [53, 53, 52]), (3, 1, [63, 63, 62])],
)
def test_answers_take_what_the_allocator_gives(
    name: str, method: str, batch_size: int, new_tokens: int, prompts: list[int]
) -> None:
    """The batches are those of the prompts that take most; a ladder keeps no keys and values."""
    meta, real = both(*MODELS[name])
    config = mix(method, range(len(meta.shape.layers)))
    truth = measured(real, config, batch_size, prompts, new_tokens)
    peak = predicted(meta, config, batch_size, new_tokens)
    assert peak == pytest.approx(truth, rel=1e-2)
    backbone = sum(p.numel() * p.element_size() for p in meta.model.parameters())
    assert peak - backbone == pytest.approx(truth - backbone, rel=3e-2)


@pytest.mark.parametrize("prompt", [1, 8, 24, 40, 60])
def test_batches_of_other_prompts_take_no_more(prompt: int) -> None:
    meta, real = both(*MODELS["deep"])
    config = mix("lora", range(8))
    truth = measured(real, config, 2, [prompt] * (2 * LONGEST // (prompt + 8)), 8)
    assert truth < 1.002 * predicted(meta, config, 2, 8)


def test_answers_end_with_the_positions_of_the_model() -> None:
    """GPT-2 has 1024, among which are those of the prompt."""
    meta, _ = both(*GENERATORS["gpt2"])
    config = mix("lora", range(2))
    size = {"batch_size": 1, "device": "cpu"}
    whole = predict_answering(meta, config, **size, sequence_length=1024, new_tokens=1024)
    assert whole == predict_answering(meta, config, **size, sequence_length=1024, new_tokens=1023)
    assert whole == predict_answering(meta, config, **size, sequence_length=1024, new_tokens=9999)


def test_long_answers_take_more_than_a_step_where_little_is_trained() -> None:
    meta, _ = both(*MODELS["deep"])
    config = mix("lora", range(7, 8))
    step = predict_memory(meta, config, batch_size=1, sequence_length=LONGEST, device="cpu").peak
    assert predicted(meta, config, 1, 8) < step < predicted(meta, config, 1, 192)


def test_a_training_takes_what_steps_or_answers_take() -> None:
    """Known before it, and estimated as well."""
    meta, _ = both(*MODELS["deep"])
    placed = mix("lora", range(7, 8)).placements
    config = PeftConfig.of(placed, train={"batch_size": 1})
    step = predict_memory(meta, config, batch_size=1, sequence_length=LONGEST, device="cpu").peak
    peaks = {0: step, 8: step, 192: predicted(meta, config, 1, 192)}
    for new_tokens, peak in peaks.items():
        setting = Setting(meta, LONGEST, "cpu", new_tokens=new_tokens)
        known = known_quantities(setting)["peak_memory"]
        assert known.value(config) == peak
        assert known.estimate is not None
        assert known.estimate(config) == pytest.approx(peak, rel=1e-3)
