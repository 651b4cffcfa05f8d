"""Criteria, against what transformers computes of the same outputs and targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf

from autopeft.model.head import (
    HEADS,
    IGNORED,
    MANY_LABELS,
    ONE_LABEL,
    REGRESSION,
    Criterion,
    ManyLabels,
    OneLabel,
    TokenLabels,
    Value,
)

BERT = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAMA = {**BERT, "intermediate_size": 16}
IDS = torch.randint(1, 30, (4, 6), generator=torch.Generator().manual_seed(0))
TOKENS = IDS.where(IDS % 3 > 0, IGNORED)
FLAGS = (IDS[:, :3] > 15).float()


def bert(kind: Any, n_labels: int, problem: str | None = None) -> Any:
    return kind(tf.BertConfig(**BERT, num_labels=n_labels, problem_type=problem)).eval()


CASES: dict[str, tuple[Any, Criterion, torch.Tensor]] = {
    "one label": (
        bert(tf.BertForSequenceClassification, 3, ONE_LABEL),
        OneLabel(),
        torch.tensor([0, 2, 1, 1]),
    ),
    "many labels": (bert(tf.BertForSequenceClassification, 3, MANY_LABELS), ManyLabels(), FLAGS),
    "value": (
        bert(tf.BertForSequenceClassification, 1, REGRESSION),
        Value(),
        torch.tensor([0.5, -1.0, 2.0, 0.0]),
    ),
    "token labels": (bert(tf.BertForTokenClassification, 30), TokenLabels(), TOKENS),
}


@pytest.mark.parametrize("name", CASES)
def test_the_mean_is_the_loss_of_transformers(name: str) -> None:
    model, criterion, targets = CASES[name]
    with torch.no_grad():
        returned = model(IDS, labels=targets)
    outputs = criterion.outputs(returned)
    mean = criterion.losses(outputs, targets).sum() / criterion.weights(targets).sum()
    assert mean.item() == pytest.approx(returned.loss.item(), rel=1e-5)
    assert criterion.losses(outputs, targets).shape == (4,)


@pytest.mark.parametrize("name", CASES)
def test_what_is_wanted_is_what_is_predicted_of_outputs_that_say_it(name: str) -> None:
    model, criterion, targets = CASES[name]
    classes = model.config.num_labels
    said = {
        "one label": torch.eye(classes)[targets.long() % classes] if targets.dim() == 1 else None,
        "many labels": 2 * targets - 1,
        "value": targets[:, None] if targets.dim() == 1 else None,
        "token labels": torch.eye(classes)[targets.long().clamp(min=0) % classes],
    }[name]
    given = criterion.rows(criterion.predictions(said), targets)
    assert given == criterion.rows(targets, targets)
    assert len(given) == 4


def test_a_causal_model_is_trained_on_the_tokens_that_follow() -> None:
    model = tf.LlamaForCausalLM(tf.LlamaConfig(**LLAMA)).eval()
    with torch.no_grad():
        returned = model(IDS, labels=TOKENS)
    following = torch.cat([TOKENS[:, 1:], torch.full((4, 1), IGNORED)], dim=1)
    criterion = HEADS["causal-lm"].criterion
    losses = criterion.losses(returned.logits, following)
    mean = losses.sum() / criterion.weights(following).sum()
    assert mean.item() == pytest.approx(returned.loss.item(), rel=1e-5)


def test_smoothing_is_a_share_of_all_classes() -> None:
    """For one label that of torch; for many, a target between 0 and 1."""
    outputs, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    wanted = torch.nn.functional.cross_entropy(outputs, targets, label_smoothing=0.2)
    assert OneLabel().losses(outputs, targets, 0.2).mean().item() == pytest.approx(wanted.item())
    smooth = 0.8 * FLAGS + 0.1
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(outputs, smooth)
    assert ManyLabels().losses(outputs, FLAGS, 0.2).mean().item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("name", CASES)
def test_blank_targets_have_the_shape_and_kind_of_real_ones(name: str) -> None:
    model, criterion, targets = CASES[name]
    blank = criterion.blank(4, 6, model.config.num_labels)
    assert (blank.shape, blank.dtype, blank.device.type) == (targets.shape, targets.dtype, "meta")


def test_words_are_computed_only_where_they_are_judged() -> None:
    """Losses and gradients are those of all positions."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    llama = tf.LlamaForCausalLM(tf.LlamaConfig(**sizes, num_attention_heads=2))
    ids = torch.randint(40, (3, 6))
    targets = torch.full((3, 6), IGNORED)
    targets[0, 3], targets[2, 4] = 7, 9
    criterion = HEADS["causal-lm"].criterion
    kept = criterion.kept(llama, targets)
    assert kept is not None
    assert kept.tolist() == [3, 4]
    grads = []
    for outputs, wanted in (
        (llama(ids).logits, targets),
        (llama(ids, logits_to_keep=kept).logits, targets[:, kept]),
    ):
        llama.zero_grad()
        losses = criterion.losses(outputs, wanted)
        losses.sum().backward()
        assert criterion.weights(wanted).tolist() == [1, 0, 1]
        grads.append(torch.cat([losses.detach(), llama.model.embed_tokens.weight.grad.flatten()]))
    assert torch.allclose(*grads, atol=1e-5)
    assert criterion.kept(llama, torch.zeros(3, 6, dtype=torch.long)) is None


def test_targets_are_shifted_also_where_a_model_does_not_say_how() -> None:
    """As BART shifts them, which does."""
    sizes = {"vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    ids = {"pad_token_id": 1, "decoder_start_token_id": 2}
    targets = torch.tensor([[5, 6, 7], [8, IGNORED, IGNORED]])
    criterion = HEADS["seq2seq-lm"].criterion
    read = [
        criterion.inputs(kind(config(**sizes, **ids)), {}, targets)["decoder_input_ids"].tolist()
        for kind, config in (
            (tf.BartForConditionalGeneration, tf.BartConfig),
            (tf.M2M100ForConditionalGeneration, tf.M2M100Config),
        )
    ]
    assert read == [[[2, 5, 6], [2, 8, 1]]] * 2
