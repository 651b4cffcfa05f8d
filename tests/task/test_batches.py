from __future__ import annotations

from itertools import islice

import pytest
import torch
from datasets import Dataset

from autopeft.model.backbone import load_tokenizer
from autopeft.task.batches import Encoded, by_length, shuffled
from tests.minilm import MINILM

CPU = torch.device("cpu")
LENGTHS = torch.randint(4, 64, (103,), generator=torch.Generator().manual_seed(0))


def encoded(max_length: int = 16, **columns: list[str]) -> Encoded:
    labels = list(range(len(columns["text"])))
    table = Dataset.from_dict({**columns, "label": labels})
    return Encoded.of("train", table, load_tokenizer(MINILM), max_length)


def test_a_batch_is_what_the_tokenizer_would_pad() -> None:
    texts = ["A fine film.", "Dull.", "A film that goes on, and on, and on, and on, and on."]
    split = encoded(text=texts)
    batch = split.batch(torch.tensor([2, 0]), CPU)
    wanted = load_tokenizer(MINILM)(
        [texts[2], texts[0]], padding=True, truncation=True, max_length=16, return_tensors="pt"
    )
    assert batch.inputs.keys() == wanted.keys()
    assert all(torch.equal(batch.inputs[name], wanted[name]) for name in wanted)
    assert batch.labels.tolist() == [2, 0]
    assert split.lengths.tolist() == [6, 4, 16]


def test_pairs_are_told_apart() -> None:
    batch = encoded(text=["good", "bad"], text_pair=["film", "a"]).batch(torch.arange(2), CPU)
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1]] * 2


def test_an_epoch_has_every_row_once() -> None:
    batches = list(islice(shuffled(LENGTHS, 8, torch.Generator().manual_seed(0)), 26))
    for epoch in (batches[:13], batches[13:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(103))
        assert sorted(map(len, epoch)) == [7] + [8] * 12
    first, second = ({tuple(rows.tolist()) for rows in b} for b in (batches[:13], batches[13:]))
    assert not first & second


def test_the_order_is_the_seed_s_and_not_by_length() -> None:
    orders = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        orders.append([rows.tolist() for rows in islice(shuffled(LENGTHS, 8, generator), 13)])
    assert orders[0] == orders[1] != orders[2]
    longest = [int(LENGTHS[rows].max()) for rows in orders[0]]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_batches_by_length_pad_little() -> None:
    batches = list(islice(shuffled(LENGTHS, 8, torch.Generator().manual_seed(0)), 13))
    padded = sum(int(LENGTHS[rows].max()) * len(rows) for rows in batches)
    assert padded < 1.2 * int(LENGTHS.sum())


@pytest.mark.parametrize(("n_rows", "most"), [(1000, 0.03), (5000, 0.01)])
def test_training_pads_too_little_for_packing(n_rows: int, most: float) -> None:
    """Of lengths as those of conversations, where batches at random are half of padding."""
    generator = torch.Generator().manual_seed(0)
    lengths = (120 * torch.randn(n_rows, generator=generator).exp()).long().clamp(8, 1024)

    def padding(batches: list[torch.Tensor]) -> float:
        taken = sum(int(lengths[rows].max()) * len(rows) for rows in batches)
        return 1 - sum(int(lengths[rows].sum()) for rows in batches) / taken

    epoch = list(islice(shuffled(lengths, 8, generator), n_rows // 8))
    assert padding(epoch) < most
    assert padding(list(torch.randperm(n_rows, generator=generator).split(8))) > 0.5


@pytest.mark.parametrize("max_tokens", [1, 128, 10_000])
def test_evaluation_takes_every_row_once_within_its_tokens(max_tokens: int) -> None:
    batches = list(by_length(LENGTHS, max_tokens))
    assert sorted(torch.cat(batches).tolist()) == list(range(103))
    several = [rows for rows in batches if len(rows) > 1]
    assert all(int(LENGTHS[rows].max()) * len(rows) <= max_tokens for rows in several)
