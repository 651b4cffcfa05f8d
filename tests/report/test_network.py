from __future__ import annotations

from autopeft.core.config import PeftConfig, Placement
from autopeft.report.network import Cell, network
from tests.report.trials import adapter, lora


def test_layers_are_rows_and_sites_are_columns() -> None:
    """Methods stand together; a layer above those that are known of is drawn, too."""
    config = PeftConfig.of(
        [
            adapter(32, [1], at="both"),
            lora(4, [0, 1]),
            lora(8, [1], targets=("q", "down")),
            Placement.of("bitfit", [3], {}),
        ]
    )
    drawn = network(config, 2)
    columns = {column: place for place, column in enumerate(drawn.columns)}
    assert set(columns) == {
        ("adapter", "attention"),
        ("adapter", "ffn"),
        ("bitfit", "layer"),
        ("lora", "q"),
        ("lora", "v"),
        ("lora", "down"),
    }
    methods = [method for method, _ in drawn.columns]
    assert methods == sorted(methods, key=methods.index)
    assert len(drawn.rows) == 4
    cell = drawn.rows[1][columns["lora", "q"]]
    assert cell == Cell(12.0, "lora[q,v] r4; lora[q,down] r8")
    assert drawn.rows[0][columns["lora", "q"]] == Cell(4.0, "lora[q,v] r4")
    assert drawn.rows[0][columns["lora", "down"]] is None
    assert drawn.rows[3][columns["bitfit", "layer"]] == Cell(1.0, "bitfit")
    assert drawn.largest == {"adapter": 32, "bitfit": 1, "lora": 12}


def test_the_head_alone_has_no_columns() -> None:
    drawn = network(PeftConfig(), 6)
    assert (drawn.columns, drawn.rows) == ((), ((),) * 6)


def test_a_method_that_is_not_known_is_drawn_by_its_name() -> None:
    drawn = network(PeftConfig.of([Placement.of("later", [0], {"size": 4})]), 1)
    assert drawn.rows == ((Cell(1.0, "later"),),)
