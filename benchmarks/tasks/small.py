"""Small models that are pretrained here, for tasks whose real ones cannot be had without a hub."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image
from sklearn.datasets import load_digits
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch.nn import functional as F

Row = dict[str, Any]
Rows = dict[str, list[Row]]

SIZE = 16
"""Pixels to the side of an image; digits have half as many."""

NUMBERS = {
    "english": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "german": ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
}
_LONGEST = 6


def digits(folder: Path) -> Path:
    """Folders of handwritten digits (scikit-learn's, of UCI): 5 to 9, which the model is to learn.

    Those below 5 are left to `viewer`.
    """
    images, labels = _digits()
    kept = np.flatnonzero(labels >= 5)
    for place, number in enumerate(np.random.default_rng(0).permutation(kept)):
        split = ("train", "train", "validation", "test")[place % 4]
        name = folder / split / str(labels[number])
        name.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).resize((SIZE, SIZE)).convert("RGB").save(
            name / f"{number}.png"
        )
    return folder


def viewer(folder: Path, epochs: int = 30) -> Path:
    """A ViT of four layers that has learned to tell 0 to 4 apart, and its processor."""
    images, labels = _digits()
    kept = labels < 5
    pixels = torch.tensor(images[kept], dtype=torch.float32)[:, None] / 127.5 - 1
    pixels = F.interpolate(pixels, SIZE).expand(-1, 3, -1, -1)
    wanted = torch.tensor(labels[kept])
    config = tf.ViTConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=4,
        num_labels=5,
    )
    torch.manual_seed(0)
    model = tf.ViTForImageClassification(config).train()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(pixel_values=pixels[rows]).logits, wanted[rows])

    _learn(model, len(wanted), loss, epochs)
    model.save_pretrained(folder)
    tf.ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def numbers(language: str, n_rows: int, seed: int) -> list[Row]:
    """Rows of digits, and their names in a language."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n_rows):
        drawn = rng.integers(10, size=rng.integers(2, _LONGEST + 1))
        said = " ".join(NUMBERS[language][digit] for digit in drawn)
        rows.append({"source": " ".join(map(str, drawn)), "target": said})
    return rows


def translator(folder: Path, epochs: int = 12) -> Path:
    """A T5 of two layers on each side that writes digits as English words, and its tokenizer."""
    words = ["<pad>", "</s>", "<unk>", *map(str, range(10)), *chain(*NUMBERS.values())]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=made, **special)
    tokenizer.save_pretrained(folder)
    config = tf.T5Config(
        vocab_size=len(words),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    torch.manual_seed(0)
    model = tf.T5ForConditionalGeneration(config).train()
    rows = numbers("english", 4000, seed=0)
    sources, targets = _padded(tokenizer, rows, "source"), _padded(tokenizer, rows, "target")
    targets = targets.masked_fill(targets == 0, -100)

    def loss(batch: torch.Tensor) -> torch.Tensor:
        ids = sources[batch]
        return model(input_ids=ids, attention_mask=(ids > 0).long(), labels=targets[batch]).loss

    _learn(model, len(rows), loss, epochs)
    model.save_pretrained(folder)
    return folder


def _padded(tokenizer: Any, rows: Sequence[Row], column: str) -> torch.Tensor:
    texts = [row[column] for row in rows]
    return torch.tensor(tokenizer(texts, padding=True)["input_ids"])


def _digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return (bunch.images * (255 / 16)).astype(np.uint8), bunch.target


def _learn(model: Any, n_rows: int, loss: Any, epochs: int, batch_size: int = 32) -> None:
    """Adam with a rate that falls to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    n_steps = epochs * -(-n_rows // batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    for _ in range(epochs):
        for rows in torch.randperm(n_rows).split(batch_size):
            loss(rows).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    model.eval()
