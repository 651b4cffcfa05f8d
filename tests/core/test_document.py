from __future__ import annotations

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.document import Document
from autopeft.core.report import Report

CONFIG = PeftConfig.of([Placement("lora", (0, 1), (("r", 4),))])


def test_what_is_written_is_read() -> None:
    report = {"step": 3, "fidelity": 1.0, "metrics": {"accuracy": 0.5}}
    document = Document(
        {"config": CONFIG.to_dict(), "known": {"a": 1}, "reports": [report], "baseline": "lora"}
    )
    assert document.config == CONFIG
    assert document.known == {"a": 1}
    assert document.reports == (Report(3, 1.0, {"accuracy": 0.5}),)
    assert document.baseline == "lora"


def test_anything_may_be_missing() -> None:
    document = Document({})
    assert (document.config, document.known, document.reports, document.baseline) == (
        None,
        {},
        (),
        None,
    )
