from __future__ import annotations

import pytest
import torch

from autopeft.memory.live_bytes import REST, Live

K = 1000  # float32 elements: 4,000 bytes


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def test_follows_storages_from_birth_to_death() -> None:
    live = Live(granularity=1, host=False)
    x = meta(K)
    live.assign("input", [x])
    with live:
        y = x + 1
        z = y * 2
        assert live.live == {"input": 4 * K, REST: 8 * K}
        del y
        assert live.live[REST] == 4 * K
        z = z.view(2, -1).t()
        assert live.live[REST] == 4 * K
    del z
    assert live.live == {"input": 4 * K, REST: 0}
    assert live.peak == 12 * K
    assert live.at_peak == {"input": 4 * K, REST: 8 * K}


def test_rounds_up_to_the_granularity() -> None:
    live = Live(granularity=512, host=False)
    live.assign("input", [meta(1), meta(128), meta(129), meta(0)])
    assert live.peak == 512 + 512 + 1024


def test_a_storage_counts_once_and_moves_between_parts() -> None:
    live = Live(granularity=1, host=False)
    x = meta(10, 10)
    live.assign("input", [x, x[2:], x.t()])
    assert live.live == {"input": 400}
    live.assign("other", [x[:1]])
    assert live.live == {"input": 0, "other": 400}
    assert live.peak == 400


def test_restart_forgets_the_peak() -> None:
    live = Live(granularity=1, host=False)
    with live:
        meta(K)
        x = meta(10)
    live.restart()
    assert live.peak == 40
    assert sum(live.at_peak.values()) == x.numel() * 4


@pytest.mark.parametrize("host", [True, False])
def test_the_host_counts_where_it_is_the_device(host: bool) -> None:
    live = Live(granularity=1, host=host)
    with live:
        kept = torch.ones(K) + 1
    assert live.live.get(REST, 0) == (4 * K if host else 0)
    assert kept.sum() == 2 * K


def test_what_backward_needs_stays_alive() -> None:
    live = Live(granularity=1, host=False)
    x = meta(K).requires_grad_()
    with live:
        y = x.exp().sin()
        assert live.live[REST] == 8 * K
        y.sum().backward()
        del y
    assert live.live[REST] == 4 * K
    assert x.grad is not None


def test_expansions_take_the_place_of_an_operation() -> None:
    def generous(x: torch.Tensor) -> torch.Tensor:
        workspace = torch.empty(9 * K, device=x.device)
        return torch.empty_like(x) if workspace.numel() else x

    x = meta(K)
    live = Live(granularity=1, host=False)
    live.expand({torch.ops.aten.exp.default: generous})
    with live:
        y = x.exp()
    assert live.live[REST] == y.numel() * 4
    assert live.peak == 40 * K
