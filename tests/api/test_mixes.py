"""A study over every method at once, from file to export."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as tf

import autopeft
from autopeft.core.methods import DECLARATIONS
from autopeft.core.size import size_option
from tests import tiny


def test_a_space_of_all_methods(tmp_path: Path) -> None:
    """Each may be on any half of the layers; what is exported computes what was trained."""
    place = []
    for method in DECLARATIONS:
        size = size_option(method)
        sized = {} if size is None else {size: {"choice": [0, 2]}}
        where = {"where": {"subset": "groups"}} if size is None else {}
        needed = {"peft_type": "miss", "r": 4} if method == "peft" else {}
        place.append({"method": method, **needed, **sized, **where})
    document = {**tiny.study(tmp_path), "name": "mixes"}
    document["space"] = {"layers": {"groups": 2}, "place": place, "train": {"batch_size": 8}}
    document["search"] = {"sampler": "random", "n_trials": 2, "n_finalists": 0}
    outcome = autopeft.run(document)
    assert {trial.state for trial in outcome.trials} == {"complete"}
    trial = max(outcome.trials, key=lambda trial: len(trial.config.placements))
    assert len({placement.method for placement in trial.config.placements}) >= 5
    base = tiny.folder_of(tiny.MODEL)
    tokenizer = tf.AutoTokenizer.from_pretrained(base)
    tokens = tokenizer(["a warm film", "boredom"], return_tensors="pt", padding=True)
    auto = tf.AutoModelForSequenceClassification
    folder = autopeft.export(outcome, tmp_path / "native", trial=trial.number, format="native")
    with torch.no_grad():
        plain = auto.from_pretrained(base).eval()(**tokens).logits
        first, again = (
            autopeft.load(auto.from_pretrained(base), folder).model.eval()(**tokens).logits
            for _ in range(2)
        )
    assert torch.equal(first, again)
    assert not torch.allclose(first, plain, atol=1e-2)
