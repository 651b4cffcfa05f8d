from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autopeft.objective.pareto import ranks
from autopeft.objective.ranking import Ranking
from tests.objective.test_pareto import Rows, ranks_by_definition, small_rows


@given(small_rows(most=12), st.integers(0, 99))
def test_every_order_of_coming_gives_the_ranks_by_definition(rows: Rows, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(rows))
    ranking = Ranking(len(rows[0]))
    for n, index in enumerate(order, start=1):
        ranking.add(np.array(rows[index], dtype=float))
        assert ranking.ranks.tolist() == ranks_by_definition([rows[i] for i in order[:n]])
    assert ranking.rows.tolist() == [rows[i] for i in order]


def test_many_rows_with_nan_and_infinite_ones() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3)).round(1)
    rows[::17, 1], rows[::29, 0] = math.nan, math.inf
    ranking = Ranking(3)
    for row in rows:
        ranking.add(row)
    assert len(ranking) == 300
    assert (ranking.ranks == ranks(rows)).all()
    assert (ranking.ranks[::17] == ranking.ranks.max()).all()
