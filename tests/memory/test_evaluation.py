"""An evaluation takes no more memory than a step of the training, so no prediction has it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from autopeft.core.config import PeftConfig
from autopeft.core.settings import BackboneSettings
from autopeft.memory.predict import predict_memory
from autopeft.method.member import draw
from autopeft.model.backbone import Backbone, load_backbone, meta_backbone
from autopeft.model.quicken import quicken
from autopeft.train.evaluation import evaluate
from autopeft.train.hidden import HiddenStates
from autopeft.train.passes import Passes
from tests.memory.allocator import made_up, measured_peak
from tests.memory.test_predict import GENERATORS, both, mix
from tests.minilm import MINILM

BATCHES = 3


def pair(name: str) -> tuple[Backbone, Backbone]:
    """Without weights and with them."""
    if name in GENERATORS:
        return both(*GENERATORS[name])
    settings = BackboneSettings(dtype="float32")
    real = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    return meta_backbone(MINILM, settings), real


def measured(backbone: Backbone, config: PeftConfig, batch_size: int, length: int) -> int:
    """The peak of an evaluation, the moments of AdamW among what is there."""
    with ExitStack() as undo:
        quicken(backbone.model, "cpu", undo)
        passes = Passes(backbone, 0, HiddenStates(0), form=None)
        undo.callback(passes.pack.close)
        member = draw(backbone.model, config, modules_to_save=backbone.modules_to_save)
        passes.pack.join(member)
        split = made_up(backbone, "validation", BATCHES * batch_size, length, True)
        weights = list(member.trainable().values())
        moments = [torch.empty_like(weight) for weight in weights * 2]
        held = [*backbone.model.parameters(), *backbone.model.buffers(), *weights, *moments]

        def run() -> None:
            evaluate(passes, member, split, torch.arange(len(split)), lambda _: {})

        run()
        return measured_peak(run, held)


@pytest.mark.parametrize("name", [*GENERATORS, "minilm"])
@pytest.mark.parametrize("method", ["lora", "head"])
@pytest.mark.parametrize(("batch_size", "length"), [(1, 32), (4, 16), (4, 64)])
def test_evaluations_take_no_more_than_a_step(
    name: str, method: str, batch_size: int, length: int
) -> None:
    """With the last layer tuned, or nothing, where a step takes least."""
    meta, real = pair(name)
    last = len(meta.shape.layers) - 1
    placed = mix(method, range(last, last + 1)).placements
    config = PeftConfig.of(placed, train={"batch_size": batch_size})
    size = {"batch_size": batch_size, "sequence_length": length}
    step = predict_memory(meta, config, **size, device="cpu").peak
    assert measured(real, config, batch_size, length) < 1.01 * step
