from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autopeft.model.lower_layers import enter, started_at
from autopeft.train.hidden import HiddenStates
from tests.backbones import inputs, logits, tiny

WIDTH = 4
LENGTHS = torch.tensor([3, 5, 1, 4, 2, 5])
TOKEN = WIDTH * 4  # bytes in float32
ALL = int(LENGTHS.sum()) * TOKEN
CPU = torch.device("cpu")


class Source:
    """Hidden states that say which example and token they are of, with junk where padded."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.asked: list[list[int]] = []
        self.dtype = dtype

    def __call__(self, missing: Tensor) -> Tensor:
        self.asked.append(missing.tolist())
        longest = int(LENGTHS[missing].max()) + 2
        hidden = torch.full((len(missing), longest, WIDTH), 99.0, dtype=self.dtype)
        for row, index in zip(hidden, missing.tolist(), strict=True):
            row[: LENGTHS[index]] = expected(index).to(self.dtype)
        return hidden


def expected(index: int) -> Tensor:
    tokens = 10 * index + torch.arange(int(LENGTHS[index])) + 1
    return tokens[:, None].expand(-1, WIDTH).float()


def ask(
    cache: HiddenStates, source: Callable[[Tensor], Tensor], rows: list[int], key="k"
) -> Tensor:
    """What the cache returns, compared with what it should be."""
    found = cache.rows(key, LENGTHS, torch.tensor(rows), source, CPU)
    assert found.shape == (len(rows), int(LENGTHS[rows].max()), WIDTH)
    for row, index in zip(found, rows, strict=True):
        length = int(LENGTHS[index])
        assert torch.equal(row[:length].float(), expected(index))
        assert not row[length:].any()
    return found


BUDGETS = {
    "memory": (ALL, 0),
    "disk": (0, ALL),
    "both": (6 * TOKEN, ALL),
    "some": (6 * TOKEN, 4 * TOKEN),
    "nothing": (0, 0),
}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_the_same_wherever_they_are_kept(
    budget: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    memory, disk = BUDGETS[budget]
    cache, source = HiddenStates(memory, disk, tmp_path), Source(dtype)
    for rows in ([0, 1], [2, 3], [4, 5], [5, 0, 3], [1, 1, 2], [0, 1, 2, 3, 4, 5]):
        assert ask(cache, source, rows).dtype == dtype
        assert cache.memory_bytes <= memory
        assert cache.disk_bytes <= disk
    if memory + disk >= ALL:
        assert source.asked == [[0, 1], [2, 3], [4, 5]]
        assert cache.n_bytes == ALL * dtype.itemsize // 4
        assert (cache.misses, cache.hits) == (6, 12)
    if budget == "nothing":
        assert (cache.n_bytes, cache.hits) == (0, 0)


def test_memory_comes_first(tmp_path: Path) -> None:
    cache, source = HiddenStates(8 * TOKEN, ALL, tmp_path), Source()
    ask(cache, source, [0, 1])
    assert (cache.memory_bytes, cache.disk_bytes) == (8 * TOKEN, 0)
    ask(cache, source, [3])
    assert (cache.memory_bytes, cache.disk_bytes) == (8 * TOKEN, 4 * TOKEN)


def test_an_example_that_stands_twice_is_computed_once() -> None:
    cache, source = HiddenStates(ALL), Source()
    ask(cache, source, [3, 1, 3, 3])
    ask(cache, source, [3, 1, 0])
    assert source.asked == [[1, 3], [0]]
    assert (cache.misses, cache.hits) == (3, 2)


def test_keys_do_not_mix() -> None:
    cache, source = HiddenStates(2 * ALL), Source()
    ask(cache, source, [0, 1], ("float32", 2, "train"))
    ask(cache, source, [0, 1], ("float32", 3, "train"))
    assert source.asked == [[0, 1], [0, 1]]


def test_the_key_that_was_asked_for_least_recently_goes(tmp_path: Path) -> None:
    cache, source = HiddenStates(8 * TOKEN, 8 * TOKEN, tmp_path), Source()
    ask(cache, source, [0, 1], "memory")
    ask(cache, source, [0, 1], "disk")
    ask(cache, source, [0, 1], "memory")
    ask(cache, source, [0, 1], "new")
    source.asked.clear()
    ask(cache, source, [0, 1], "memory")
    ask(cache, source, [0, 1], "new")
    assert source.asked == []
    ask(cache, source, [0, 1], "disk")
    assert source.asked == [[0, 1]]


def test_a_key_that_is_too_large_keeps_what_fits() -> None:
    cache, source = HiddenStates(9 * TOKEN), Source()
    for _ in range(3):
        ask(cache, source, [0, 1])
        ask(cache, source, [3, 5])
    assert source.asked == [[0, 1], [3, 5], [3, 5], [3, 5]]
    assert cache.memory_bytes == 8 * TOKEN


def test_an_error_while_computing_changes_nothing(tmp_path: Path) -> None:
    cache, source = HiddenStates(8 * TOKEN, 0, tmp_path), Source()
    ask(cache, source, [0, 1], "old")

    def fail(missing: Tensor) -> Tensor:
        raise MemoryError

    for key in ("old", "new"):
        with pytest.raises(MemoryError):
            ask(cache, fail, [0, 3], key)
    assert cache.memory_bytes == 8 * TOKEN
    ask(cache, source, [0, 1], "old")
    assert source.asked == [[0, 1]]


def test_a_full_disk_gets_no_more(tmp_path: Path) -> None:
    cache, source = HiddenStates(0, ALL, tmp_path), Source()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * TOKEN, hard))
    try:
        for _ in range(2):
            ask(cache, source, [0, 1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert source.asked == [[0, 1], [1]]
    assert cache.disk_bytes == 3 * TOKEN


def test_a_folder_that_does_not_exist_is_no_disk(tmp_path: Path) -> None:
    cache, source = HiddenStates(0, ALL, tmp_path / "none"), Source()
    ask(cache, source, [0, 1])
    assert cache.n_bytes == 0


def test_what_was_kept_while_evaluating_serves_training() -> None:
    cache, source = HiddenStates(ALL), Source()
    with torch.inference_mode():
        ask(cache, source, [0, 1])
    weight = torch.ones(WIDTH, requires_grad=True)
    (ask(cache, source, [1, 0]) * weight).sum().backward()
    assert source.asked == [[0, 1]]
    assert weight.grad is not None


def test_what_is_returned_may_be_written_to() -> None:
    cache, source = HiddenStates(ALL), Source()
    ask(cache, source, [0, 1]).zero_()
    ask(cache, source, [0, 1]).zero_()
    ask(cache, source, [0, 1])


def test_rows_are_padded_to_what_is_asked_for() -> None:
    found = HiddenStates(0).rows("k", LENGTHS, torch.tensor([0, 2]), Source(), CPU, n_tokens=8)
    assert found.shape == (2, 8, WIDTH)
    assert not found[:, 3:].any()


def test_nothing_is_left_behind_by_a_process_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import os, signal, torch
from pathlib import Path
from autopeft.train.hidden import HiddenStates
cache = HiddenStates(0, 100, Path({str(tmp_path)!r}))
for _ in range(2):
    length, first = torch.tensor([2]), torch.tensor([0])
    cache.rows("k", length, first, lambda i: torch.ones(1, 2, 3), torch.device("cpu"))
assert cache.misses == cache.hits == 1 and cache.disk_bytes == 24
os.kill(os.getpid(), signal.SIGKILL)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in processes] == [-signal.SIGKILL] * 2
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "deberta-v2"])
def test_logits_are_those_of_the_whole_model(name: str) -> None:
    model, batch = tiny(name), inputs(name)
    lengths = batch["attention_mask"].sum(1)
    cache, order = HiddenStates(1 << 20), torch.tensor([2, 0, 1])

    def compute(missing: Tensor) -> Tensor:
        return enter(model, 1, {name: tensor[missing] for name, tensor in batch.items()})

    with torch.inference_mode():
        wanted = logits(model, batch)
        for rows in (order[:1], order[1:], order):
            tokens = int(lengths[rows].max())
            part = {name: tensor[rows][:, :tokens] for name, tensor in batch.items()}
            with started_at(model, 1, cache.rows(name, lengths, rows, compute, CPU)):
                found = logits(model, part)
            for row, index in zip(found, rows.tolist(), strict=True):
                real = slice(None) if row.dim() == 1 else slice(int(lengths[index]))
                torch.testing.assert_close(row[real], wanted[index][real], rtol=0, atol=1e-5)
    assert cache.misses == 3
