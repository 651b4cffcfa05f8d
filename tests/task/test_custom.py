"""Trainings of the user's own inside a trial, and configurations inside the user's own training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import autopeft
from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import StudyError
from autopeft.core.order import Order
from autopeft.core.report import Failure, Report
from autopeft.task.registry import task_of
from autopeft.train.custom import CustomTrainer
from tests.exports import exported
from tests.small_models import save_decoder, words_tokenizer

WORDS = ["<eos>", "<unk>", "is", "the", "film", "good", "bad", "yes", "no", "really"]
HERE = "tests.task.own_training"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    tokenizer = words_tokenizer(WORDS, pad_token="<eos>")
    return save_decoder(tmp_path / "model", tokenizer, initializer_range=0.3)


def study(folder: Path, model: Path, function: str) -> dict[str, Any]:
    return {
        "name": "own",
        "model": str(model),
        "task": {"type": "custom", "function": function, "reports": {"sft_loss": "minimize"}},
        "space": {
            "name": "ranks",
            "place": [{"method": "lora", "r": {"choice": [8, 16]}, "targets": [*"qkvo"]}],
            "train": {"learning_rate": 2e-2, "batch_size": 4},
        },
        "objectives": [
            {"name": "sft_loss", "goal": "minimize", "reference": 10.0},
            {"name": "trainable_params", "goal": "minimize", "known": True, "reference": 1e8},
        ],
        "search": {"n_trials": 2, "n_finalists": 1, "n_seeds": 2},
        "fidelity": {"epochs": 4.0, "final_epochs": 4.0},
        "storage": f"sqlite:///{folder}/study.db",
        "output": str(folder / "out"),
    }


def test_trl_trains_the_trials(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has trained is exported, and says the same in every form."""
    monkeypatch.chdir(tmp_path)
    outcome = autopeft.run(study(tmp_path, small, f"{HERE}:with_trl"))
    assert {t.state for t in outcome.trials} == {"complete"}
    assert [t.test.keys() for t in outcome.trials if t.repeat_of is not None] == [{"sft_loss"}] * 2
    best = outcome.choose("best").trial
    assert best.values["sft_loss"] < 1.5
    tokens = words_tokenizer(WORDS)(["is the film bad"], return_tensors="pt")
    logits = {}
    for form, model in exported(
        outcome, best.number, tf.AutoModelForCausalLM, small, tmp_path / "exports"
    ):
        with torch.no_grad():
            logits[form] = model(**tokens).logits
    plain = tf.AutoModelForCausalLM.from_pretrained(small)(**tokens).logits
    assert not torch.allclose(logits["native"], plain, atol=0.1)
    assert torch.allclose(logits["native"], logits["peft"], atol=1e-5)
    assert torch.allclose(logits["native"], logits["merged"], atol=1e-4)


def lora(r: int = 4) -> PeftConfig:
    return PeftConfig.of(
        [Placement.of("lora", [0, 1], {"targets": ("q", "v"), "r": r, "lora_alpha": None})],
        {"learning_rate": 1e-2},
    )


def events(function: str, small: Path, **order: Any) -> list[Report | Failure]:
    task = task_of({"type": "custom", "function": function, "reports": {"sft_loss": "minimize"}})
    trainer = CustomTrainer(str(small), task)
    for member in (0, 1):
        trainer.join(member, lora(2 + member), Order((1.0, 3.0), **order))
    found: list[Report | Failure] = []
    while more := trainer.advance():
        found += more
    return found


def test_rungs_are_reported_one_member_after_the_other(small: Path, tmp_path: Path) -> None:
    """What paused begins anew and tells only what is new; files are those of every training."""
    found = events(f"{HERE}:with_trainer", small, folder=str(tmp_path / "kept"))
    assert [(e.member, e.fidelity) for e in found] == [(0, 1.0), (0, 3.0), (1, 1.0), (1, 3.0)]
    assert found[0].metrics["sft_loss"] > found[1].metrics["sft_loss"]
    assert (tmp_path / "kept" / "peft.safetensors").is_file()
    again = events(f"{HERE}:with_trainer", small, folder=str(tmp_path / "kept"), reached=1.0)
    assert [(e.member, e.fidelity) for e in again] == [(0, 3.0), (1, 3.0)]
    assert again[0].metrics["sft_loss"] == pytest.approx(found[1].metrics["sft_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("that_stops", r"that_stops ended at 3 of 3 epochs$"),
        ("that_diverges", r"must yield a finite 'sft_loss' at 1 epochs, got nan$"),
        ("that_tells_nothing", r"must yield a finite 'sft_loss' at 1 epochs, got nothing$"),
    ],
)
def test_a_function_that_fails_its_promise_fails_the_trial(
    name: str, reason: str, small: Path
) -> None:
    failures = [e for e in events(f"{HERE}:{name}", small) if isinstance(e, Failure)]
    assert [failure.member for failure in failures] == [0, 1]
    assert all(f"Error: {HERE}:{name} " in f.error for f in failures)
    assert re.search(reason, failures[0].error)


def test_a_function_that_takes_nothing_leaves_the_backbone_free(small: Path) -> None:
    found = events(f"{HERE}:that_takes_nothing", small)
    assert all(isinstance(e, Failure) and "takes 0 positional" in e.error for e in found)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("no.such.module:train", "'no.such.module' cannot be imported: ModuleNotFoundError"),
        (f"{HERE}:with_tlr", "unknown generator 'with_tlr'.*did you mean 'with_trl'"),
        (f"{HERE}:no_generator", "unknown generator 'no_generator'"),
        ("nowhere.py:train", "'nowhere.py' cannot be imported: FileNotFoundError"),
    ],
)
def test_a_function_that_is_none_is_told(
    function: str, reason: str, small: Path, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=rf"^own: task.function: .*{reason}"):
        autopeft.run(study(tmp_path, small, function))


def test_a_function_may_lie_in_a_file(tmp_path: Path) -> None:
    """Another content is other data."""
    file = tmp_path / "mine.py"
    file.write_text("def train(run):\n    yield {'x': 1.0}\n", encoding="utf-8")
    task = task_of({"type": "custom", "function": f"{file}:train", "reports": {"x": "maximize"}})
    assert task.call()(None).__next__() == {"x": 1.0}
    before = task.load().digest
    file.write_text("def train(run):\n    yield {'x': 2.0}\n", encoding="utf-8")
    assert task.load().digest != before


def test_a_trainer_finds_what_is_attached(small: Path, tmp_path: Path) -> None:
    """`attach` makes the tensors parameters of the model, and `detach` takes them away."""
    model = tf.AutoModelForCausalLM.from_pretrained(small)
    names = [name for name, _ in model.named_parameters()]
    attached = autopeft.attach(model, lora())
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in attached.trainable().values()}
    before = {name: t.clone() for name, t in attached.state_dict().items()}
    data = [{"input_ids": torch.tensor([2, 3, 4, 5]), "labels": torch.tensor([2, 3, 4, 5])}] * 4
    arguments = tf.TrainingArguments(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, disable_tqdm=True, max_steps=2
    )
    tf.Trainer(model=attached.model, args=arguments, train_dataset=data).train()
    assert all(not torch.equal(t, before[name]) for name, t in attached.state_dict().items())
    attached.detach()
    assert [name for name, _ in model.named_parameters()] == names
