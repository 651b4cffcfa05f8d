"""A backbone whose layers lie on several devices, as far as one device can tell."""

from __future__ import annotations

from accelerate import dispatch_model

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.order import Order
from autopeft.train.trainer import Trainer
from tests.minilm import MINILM, lora, movies

ORDER = Order((0.5, 1.0))
TIMES = {"train_seconds", "epoch_seconds", "eval_seconds"}
CONFIGS = [
    lora(lora_dropout=0.0),
    PeftConfig.of(
        [
            Placement.of("adapter", range(2, 6), {"size": 4, "at": "ffn", "activation": "gelu"}),
            Placement.of("prefix", range(3, 6), {"length": 4}),
            Placement.of("bitfit", range(6), {}),
        ],
        {"learning_rate": 2e-3, "batch_size": 16},
    ),
]


def trained(trainer: Trainer) -> list[dict[str, float]]:
    reports = trainer(CONFIGS, ORDER)
    return [{k: v for k, v in r.metrics.items() if k not in TIMES} for r in reports]


def test_what_is_dispatched_trains_the_same() -> None:
    """Accelerate's hooks, which bring the inputs of every module to its device, and ours."""
    task = movies(max_train_samples=96, max_eval_samples=64)
    plain = trained(Trainer(MINILM, task, device="cpu"))
    trainer = Trainer(MINILM, task, device="cpu", spread=True)
    model = trainer._backbone(CONFIGS[0]).model
    layers = {f"bert.encoder.layer.{n}": "cpu" for n in range(6)}
    rest = dict.fromkeys(["bert.embeddings", "bert.pooler", "dropout", "classifier"], "cpu")
    dispatch_model(model, {**layers, **rest}, main_device="cpu", force_hooks=True)
    assert sum(hasattr(module, "_hf_hook") for module in model.modules()) > 10
    assert len(plain) == 4
    assert trained(trainer) == plain
