"""What is written of placements of which the text says how much they do."""

from __future__ import annotations

import pytest

from autopeft.api.deploy import TARGETS
from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import ExportError
from autopeft.exporter import EXPORTERS
from tests.backbones import inputs, tiny
from tests.contracts.exporter import READERS, backbone, exported, train

GATED = (
    Placement.of("lora", [0, 1], {"r": 2, "use_gating": True}),
    Placement.of("prefix", [0, 1], {"length": 3, "adaptive": True, "prefix_projection": True}),
    Placement.of("prefix", [0], {"length": 2, "adaptive": True, "use_gating": True}),
)
HOLD = {"native", "onnx"}


@pytest.mark.parametrize("format", sorted(HOLD))
def test_formats_that_hold_gates_read_back_equal(format: str, tmp_path) -> None:
    batch = inputs("bert")
    trained, expected = train(backbone(tiny("bert")), PeftConfig.of(GATED), batch)
    output = exported(format, trained, tmp_path / "out")
    assert (READERS[format](output, tiny("bert"))(**batch).logits - expected).abs().max() < 1e-4


@pytest.mark.parametrize("placement", GATED, ids=lambda placement: placement.method)
@pytest.mark.parametrize("format", sorted(EXPORTERS.keys() - HOLD))
def test_other_formats_refuse_gates_by_name(format: str, placement, tmp_path) -> None:
    trained, _ = train(backbone(tiny("bert")), PeftConfig.of([placement]), inputs("bert"))
    with pytest.raises(ExportError, match=f"^format {format}: {placement.method} on layers 0"):
        exported(format, trained, tmp_path / "out")


@pytest.mark.parametrize("placement", GATED, ids=lambda placement: placement.method)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_spaces_for_a_program_leave_gates_out(target: str, placement) -> None:
    document = {"method": placement.method, **dict(placement.options)}
    assert (TARGETS[target].fit(document) is not None) is (target in HOLD)
