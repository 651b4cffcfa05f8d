from __future__ import annotations

import math
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.core.order import Order
from autopeft.core.report import TRAINED, Failure, Report
from autopeft.task.text_classification import TextClassification
from autopeft.train.descent import Descent
from autopeft.train.member_training import CHECKPOINT
from autopeft.train.passes import Passes
from autopeft.train.trainer import Trainer
from tests.minilm import MINILM, exact, lora, movies

TIMES = {"train_seconds", "epoch_seconds", "eval_seconds"}
RUNGS = (0.2, 0.5, 1.0)
ONE_EPOCH = Order((1.0,))
EVERYTHING = PeftConfig.of(
    [
        *lora().placements,
        Placement.of("bitfit", range(6), {}),
        Placement.of("prefix", range(3, 6), {"length": 4}),
    ],
    {"learning_rate": 2e-3, "batch_size": 16},
)


def numbers(reports: Iterator[Report]) -> list[dict[str, float]]:
    """What is the same at every repetition: all but the times."""
    return [{k: v for k, v in r.metrics.items() if k not in TIMES} for r in reports]


@contextmanager
def untouched(trainer: Trainer, config: PeftConfig) -> Iterator[None]:
    """Fails where the block leaves the backbone of `config` different in any bit or hook."""
    model = trainer._backbone(config).model

    def state() -> tuple[Any, ...]:
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        grads = [name for name, p in model.named_parameters() if p.grad is not None]
        needs = [p.requires_grad for p in model.parameters()]
        return (
            hooks,
            grads,
            needs,
            {m.training for m in model.modules()},
            model.config._attn_implementation,
        )

    before, tensors = state(), {name: t.clone() for name, t in model.state_dict().items()}
    yield
    assert state() == before
    after = model.state_dict()
    assert after.keys() == tensors.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in tensors.items())


def test_a_report_comes_at_every_rung(trainer: Trainer, tmp_path: Path) -> None:
    reports = list(trainer([lora()], Order((0.5, 1.0, 2.0), folder=str(tmp_path / "new"))))
    assert [(r.step, r.fidelity, r.member) for r in reports] == [(3, 0.5, 0), (6, 1, 0), (12, 2, 0)]
    for report in reports:
        named = {"validation_loss", "train_loss", "learning_rate", "n_validation", TRAINED}
        assert report.metrics.keys() == trainer.task.goals.keys() | TIMES | named
        assert report.metrics["n_validation"] == 64
    rates = [report.metrics["learning_rate"] for report in reports]
    assert rates == pytest.approx([2e-3 * (1 - (step - 2) / 11) for step in (3, 6, 12)])
    assert (tmp_path / "new" / "peft.safetensors").is_file()


def test_saved_tensors_score_as_they_were_reported(trainer: Trainer, tmp_path: Path) -> None:
    *_, last = trainer([EVERYTHING], Order((1.0,), folder=str(tmp_path)))
    state = load_file(tmp_path / "peft.safetensors")
    with untouched(trainer, EVERYTHING):
        found = trainer.score(EVERYTHING, state, split="validation")
    assert found["loss"] == pytest.approx(last.metrics["validation_loss"], abs=1e-6)
    assert found["accuracy"] == last.metrics["accuracy"]
    test = trainer.score(EVERYTHING, state)
    assert test["n_examples"] == 64
    assert test["loss"] != found["loss"]
    with pytest.raises(AttachError), untouched(trainer, EVERYTHING):
        trainer.score(lora(), state)


def test_training_leaves_every_bit_of_the_backbone(trainer: Trainer) -> None:
    with untouched(trainer, EVERYTHING):
        list(trainer([EVERYTHING], ONE_EPOCH))


def test_closing_early_takes_the_configuration_off(trainer: Trainer) -> None:
    with untouched(trainer, EVERYTHING):
        reports = trainer([EVERYTHING, lora()], Order((0.2, 1.0)))
        next(reports)
        reports.close()
        assert list(reports) == []


def test_a_failing_configuration_leaves_the_backbone_usable(trainer: Trainer) -> None:
    undisturbed = numbers(trainer([lora()], Order((0.5,))))
    with untouched(trainer, lora()):
        with pytest.raises(RuntimeError, match=r"^DivergenceError: loss is nan at step \d+$"):
            list(trainer([lora(learning_rate=1e30, max_grad_norm=1e30)], ONE_EPOCH))
        absent = PeftConfig.of([Placement.of("lora", [7], dict(lora().placements[0].options))])
        with pytest.raises(RuntimeError, match=r"^AttachError: .*no layer 7"):
            list(trainer([absent], ONE_EPOCH))
    assert numbers(trainer([lora()], Order((0.5,)))) == undisturbed


def test_the_same_seed_gives_the_same_numbers(trainer: Trainer) -> None:
    order = Order((0.5, 1.0), seed=3)
    first = numbers(trainer([lora()], order))
    torch.manual_seed(99)
    second = []
    for report in trainer([lora()], order):
        second.append({k: v for k, v in report.metrics.items() if k not in TIMES})
        torch.rand(5)
    assert first == second
    assert first != numbers(trainer([lora()], Order((0.5, 1.0), seed=4)))


def test_a_rung_on_the_way_changes_nothing(trainer: Trainer) -> None:
    *_, with_stops = trainer([lora()], Order((0.2, 0.5, 1.0)))
    (direct,) = trainer([lora()], ONE_EPOCH)
    assert with_stops.metrics["validation_loss"] == direct.metrics["validation_loss"]


def test_the_random_state_of_the_caller_is_left_alone(trainer: Trainer) -> None:
    before = torch.get_rng_state()
    for _ in trainer([lora()], Order((0.2, 0.4))):
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_process_finds_the_same_numbers(trainer: Trainer) -> None:
    code = """
from tests.minilm import MINILM, lora, movies
from tests.train.test_trainer import numbers
from autopeft.core.order import Order
from autopeft.train.trainer import Trainer
trainer = Trainer(MINILM, movies(max_train_samples=96, max_eval_samples=64), threads=1)
print(numbers(trainer([lora()], Order((0.5,)))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(numbers(trainer([lora()], Order((0.5,)))))


def test_dropout_of_the_backbone_is_on_while_training(trainer: Trainer) -> None:
    model = trainer._backbone(lora()).model
    modes = []
    hook = model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    try:
        list(trainer([lora()], Order((0.5, 1.0))))
    finally:
        hook.remove()
    assert modes[:3] == [True] * 3
    assert modes.count(True) == 6
    assert modes[3] is modes[-1] is False


def test_configurations_of_unlike_depth_train_one_after_the_other(trainer: Trainer) -> None:
    other = lora(range(4, 6))
    together = list(trainer([lora(), other], Order((0.2, 0.5))))
    assert [(r.member, r.fidelity) for r in together] == [(0, 0.2), (0, 0.5), (1, 0.2), (1, 0.5)]
    alone = numbers(trainer([other], Order((0.2, 0.5))))
    assert numbers(iter(together[2:])) == alone


def test_configurations_of_one_depth_train_side_by_side(trainer: Trainer) -> None:
    quiet = {"lora_dropout": 0.0}
    configs = [lora(range(2, 6), **quiet), lora([2], learning_rate=1e-3, **quiet)]
    together = list(trainer(configs, Order((0.2, 0.5))))
    assert [(r.member, r.fidelity) for r in together] == [(0, 0.2), (1, 0.2), (0, 0.5), (1, 0.5)]
    alone = list(trainer(configs[:1], Order((0.2, 0.5))))
    assert [r.step for r in together if r.member == 0] == [r.step for r in alone]


def test_a_member_that_diverges_leaves_the_others(trainer: Trainer) -> None:
    wild = lora(learning_rate=1e30, max_grad_norm=1e30)
    for number, config in enumerate([lora(), wild]):
        trainer.join(number, config, ONE_EPOCH)
    events = []
    while found := trainer.advance():
        events += found
    failure, report = events
    assert failure.member == 1
    assert failure.fault == "divergence"
    assert failure.error.startswith("DivergenceError: loss is nan at step ")
    assert report.member == 0
    assert math.isfinite(report.metrics["train_loss"])


def test_a_last_step_that_explodes_fails_that_member_alone(
    trainer: Trainer, tmp_path: Path
) -> None:
    wild = lora(batch_size=96, learning_rate=1e30)  # one step to the rung
    for number, config in enumerate([lora(batch_size=96), wild]):
        trainer.join(number, config, Order((1.0,), folder=str(tmp_path / str(number))))
    events = trainer.advance()
    (failure,) = [event for event in events if isinstance(event, Failure)]
    (report,) = [event for event in events if isinstance(event, Report)]
    assert failure.member == 1
    assert failure.error.endswith("the logits of 64 of 64 validation examples are not finite")
    assert math.isfinite(report.metrics["validation_loss"])
    assert [path.parent.name for path in tmp_path.rglob("*.*")] == ["0"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_of_numbers_that_are_not_finite_is_refused(
    value: float, trainer: Trainer, tmp_path: Path
) -> None:
    list(trainer([lora()], Order((0.2,), folder=str(tmp_path))))
    state = load_file(tmp_path / "peft.safetensors")
    state["head.classifier.bias"][1] = value
    with pytest.raises(RuntimeError, match="of 64 of 64 test examples are not finite"):
        trainer.score(lora(), state)


def test_tensors_that_are_not_finite_are_not_kept(trainer: Trainer, tmp_path: Path) -> None:
    trainer.join(0, lora(), Order((0.2, 1.0), folder=str(tmp_path)))
    trainer.advance()
    assert trainer._pack is not None
    (member,) = trainer._pack._active
    unread = member.tensors.trainable()["layers.2.lora.self.q.A"]
    with torch.no_grad():
        unread[0, 0] = math.inf
    with pytest.raises(RuntimeError, match=r"1 of \d+ tensors, first layers\.2\.lora\.self\.q\.A"):
        member.keep(0.2)
    trainer.leave(0)


def test_what_goes_wrong_in_a_pass_is_the_failure_of_everyone_in_it(trainer: Trainer) -> None:
    def stumble(*_: object) -> None:
        raise LookupError("no pass")

    list(trainer([lora()], Order((0.2,))))
    for number, config in enumerate([lora(), lora(learning_rate=1e-4), lora(dtype="bfloat16")]):
        trainer.join(number, config, Order((0.2,)))
    stumbles = [b.model.register_forward_pre_hook(stumble) for b in trainer._backbones.values()]
    failures = trainer.advance()
    assert [failure.member for failure in failures] == [0, 1]
    assert failures[1] == Failure(1, "LookupError: no pass (beside 0)")
    for each in stumbles:
        each.remove()
    assert [event.member for event in trainer.advance()] == [2]
    assert trainer.advance() == []


def test_a_member_joins_one_that_trains_and_another_leaves(trainer: Trainer) -> None:
    with untouched(trainer, lora()):
        trainer.join(7, lora(), Order((0.2, 0.5, 1.0)))
        assert [e.member for e in trainer.advance()] == [7]
        trainer.join(9, lora(learning_rate=1e-4), Order((0.5,)))
        assert [(e.member, e.fidelity) for e in trainer.advance()] == [(7, 0.5)]
        trainer.leave(7)
        assert [(e.member, e.fidelity) for e in trainer.advance()] == [(9, 0.5)]
        assert trainer.advance() == []
        trainer.leave(9)


def test_members_without_dropout_learn_what_they_learn_alone(still: Trainer) -> None:
    configs = [exact(range(3, 6), r=r) for r in (2, 8, 3)]
    together = {r.member: r.metrics for r in still(configs, Order((0.5,)))}
    for number, config in enumerate(configs):
        (alone,) = still([config], Order((0.5,)))
        for name in ("train_loss", "validation_loss"):
            assert together[number][name] == pytest.approx(alone.metrics[name], rel=1e-4)


def test_where_memory_is_short_half_of_the_members_wait(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device refuses more rows than two members have."""
    model = trainer._backbone(lora()).model

    def refuse(module: Any, args: Any, kwargs: Any) -> None:
        if len(kwargs["input_ids"]) > 2 * 16:
            raise torch.OutOfMemoryError("too many rows")

    hook = model.register_forward_pre_hook(refuse, with_kwargs=True)
    monkeypatch.setattr("autopeft.train.evaluation.CPU_TOKENS", 16 * 16)
    try:
        reports = list(trainer([lora() for _ in range(4)], Order((0.2, 0.5))))
    finally:
        hook.remove()
    assert [r.member for r in reports] == [0, 1, 0, 1, 2, 3, 2, 3]
    assert len({r.metrics["train_loss"] for r in reports if r.fidelity == 0.5}) > 1


def test_accumulated_micro_batches_are_one_batch(still: Trainer) -> None:
    whole = exact(range(3, 6), batch_size=32)
    parts = exact(range(3, 6), batch_size=8, gradient_accumulation_steps=4)
    (one,), (four,) = still([whole], ONE_EPOCH), still([parts], ONE_EPOCH)
    assert one.step == four.step == 3
    assert four.metrics["learning_rate"] == one.metrics["learning_rate"]


def test_lower_layers_run_once_an_example(trainer: Trainer) -> None:
    before = trainer._hidden.misses
    first, again = lora([5], r=3), lora([5], r=4)
    list(trainer([first], Order((1.0, 2.0))))
    once = trainer._hidden.misses - before
    list(trainer([again], Order((1.0, 2.0))))
    assert trainer._hidden.misses - before == once
    assert once == 96 + 64


def test_a_cache_without_room_changes_nothing() -> None:
    task = movies(max_train_samples=96, max_eval_samples=64)
    config, order = lora([4, 5]), Order((0.5, 1.0))
    with_cache = numbers(Trainer(MINILM, task, threads=1)([config], order))
    without = numbers(Trainer(MINILM, task, threads=1, cache=0)([config], order))
    for one, other in zip(with_cache, without, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "rates"),
    [("constant", [1.0, 1.0]), ("cosine", [0.854, 0.017]), ("linear", [0.75, 0.083])],
)
def test_learning_rates_follow_their_schedule(
    trainer: Trainer, kind: str, rates: list[float]
) -> None:
    config = PeftConfig.of(
        [],
        {"learning_rate": 1.0, "lr_scheduler_type": kind, "warmup_ratio": 0.0, "batch_size": 8},
    )
    found = [r.metrics["learning_rate"] for r in trainer([config], Order((1 / 3, 1.0)))]
    assert found == pytest.approx(rates, abs=1e-3)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantized_backbone_is_trained_on_after_an_evaluation(
    trainer: Trainer, quantization: str
) -> None:
    settings = {"quantization": quantization, "gradient_checkpointing": True}
    config = PeftConfig.of(lora().placements, dict(lora().train), settings)
    with untouched(trainer, config):
        direct = numbers(trainer([config], Order((0.5,))))
        first, last = trainer([config], Order((0.2, 0.5)))
    assert last.metrics["validation_loss"] == direct[0]["validation_loss"]
    assert last.metrics["validation_loss"] != first.metrics["validation_loss"]


def test_each_form_of_the_backbone_is_loaded_once(trainer: Trainer) -> None:
    quantized = PeftConfig.of(lora().placements, dict(lora().train), {"quantization": "nf4"})
    first = trainer._backbone(lora())
    assert trainer._backbone(quantized) is not first
    assert trainer._backbone(lora()) is first
    assert len(trainer._backbones) == 2


def test_lora_learns_the_sentiment_of_movie_sentences() -> None:
    task = movies(max_train_samples=256, max_eval_samples=128)
    first, last = Trainer(MINILM, task, threads=1)([lora()], Order((1.0, 3.0)))
    assert last.metrics["accuracy"] > max(0.55, first.metrics["accuracy"] + 0.05)
    assert last.metrics["train_loss"] < 0.62 < first.metrics["train_loss"]


def test_a_decoder_without_a_padding_token_learns(tiny_llama: Path) -> None:
    lines = [f"{'very ' * (i % 4)}{('bad', 'good')[i % 2]} film\t{i % 2}" for i in range(60)]
    data = tiny_llama / "data.tsv"
    data.write_text("\n".join(["text\tlabel", *(f"{i} {line}" for i, line in enumerate(lines))]))
    trainer = Trainer(str(tiny_llama), TextClassification(data=str(data)), threads=1)
    config = lora(range(2), learning_rate=2e-2, batch_size=8)
    *_, last = trainer([config], Order((1.0, 4.0)))
    assert last.metrics["accuracy"] == 1.0


def finished(trainer: Trainer, config: PeftConfig, order: Order) -> Report:
    """The last report of a training that pauses at every rung and goes on with others between."""
    for number, rung in enumerate(order.rungs):
        trainer.join(number, config, order)
        (report,) = trainer.advance()
        assert isinstance(report, Report)
        assert report.fidelity == rung
        trainer.leave(number)
        list(trainer([EVERYTHING], Order((0.2,))))
        order = replace(order, reached=rung)
    return report


def test_training_that_pauses_is_training_that_does_not(trainer: Trainer, tmp_path: Path) -> None:
    config = lora(
        lora_dropout=0.3,
        lr_scheduler_type="cosine",
        batch_size=8,
        gradient_accumulation_steps=2,
        warmup_ratio=0.2,
    )
    whole, parts = (Order(RUNGS, 1, str(tmp_path / name)) for name in ("whole", "parts"))
    *_, undisturbed = trainer([config], whole)
    last = finished(trainer, config, parts)
    assert last.step == undisturbed.step
    assert numbers(iter([last])) == numbers(iter([undisturbed]))
    tensors = load_file(tmp_path / "whole" / "peft.safetensors")
    found = load_file(tmp_path / "parts" / "peft.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_training_without_its_state_begins_anew_and_ends_the_same(
    trainer: Trainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file is missing, half written, or of another training."""
    order = Order((0.2, 0.5), folder=str(tmp_path), stamp="this")
    *_, expected = trainer([lora()], order)
    next(iter(trainer([lora()], replace(order, stamp="another"))))
    whole = (tmp_path / CHECKPOINT).read_bytes()
    for content in (None, whole[: len(whole) // 2], whole):
        (tmp_path / CHECKPOINT).unlink(missing_ok=True)
        if content is not None:
            (tmp_path / CHECKPOINT).write_bytes(content)
        caplog.clear()
        (last,) = trainer([lora()], replace(order, reached=0.2))
        assert "begins anew, without its state" in caplog.text
        assert (last.step, last.metrics["loss"]) == (expected.step, expected.metrics["loss"])


def test_a_folder_that_cannot_be_written_fails_its_member(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    trainer.join(0, lora(), Order((0.2,), folder=str(tmp_path / "file")))
    trainer.join(1, lora(), Order((0.2,), folder=str(tmp_path / "folder")))
    failure, report = sorted(trainer.advance(), key=lambda event: event.member)
    assert isinstance(failure, Failure)
    assert failure.error.startswith("FileExistsError: ")
    assert failure.fault == "machine"
    assert isinstance(report, Report)
    assert trainer.advance() == []


def test_what_the_system_refuses_to_all_members_is_the_failure_of_the_machine(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for member in (0, 1):
        trainer.join(member, lora(), Order((0.2,)))
    with monkeypatch.context() as patched:
        patched.setattr(Passes, "outputs", full)
        failures = trainer.advance()
    assert [failure.fault for failure in failures] == ["machine", "machine"]
    assert trainer.advance() == []


@contextmanager
def a_gigabyte_at_most() -> Iterator[None]:
    """The process may take no more than that beside what it has."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 10**9, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def huge() -> PeftConfig:
    """Each of its tensors takes 1.5 GB."""
    return replace(lora(), placements=(Placement.of("lora", [5], {"r": 10**6}),))


def test_what_has_no_memory_alone_does_not_fit(trainer: Trainer) -> None:
    trainer.join(0, huge(), ONE_EPOCH)
    with a_gigabyte_at_most():
        (failure,) = trainer.advance()
    assert isinstance(failure, Failure)
    assert failure.fault == "configuration"
    assert failure.shortage
    assert (failure.shortage.device, failure.shortage.batch_size) == ("cpu", 16)
    assert failure.shortage.total > 10**9


def test_what_has_no_memory_beside_others_waits_for_their_end(trainer: Trainer) -> None:
    trainer.join(0, lora([5]), ONE_EPOCH)
    assert trainer.advance()
    trainer.join(1, lora([5]), Order((0.2, 1.0)))
    trainer.join(2, huge(), ONE_EPOCH)
    with a_gigabyte_at_most():
        events = [event for _ in range(3) for event in trainer.advance()]
    assert [event.member for event in events] == [1, 1, 2]
    assert [type(event) for event in events] == [Report, Report, Failure]


def test_an_evaluation_without_memory_beside_others(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others rest meanwhile."""
    model = trainer._backbone(lora()).model
    attention = model.get_submodule("bert.encoder.layer.5.output.dense")

    def refuse(module: Any, args: Any) -> None:
        assert trainer._pack
        if not model.training and len(trainer._pack._active) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    hook = attention.register_forward_pre_hook(refuse)
    try:
        reports = list(trainer([lora([5]) for _ in range(3)], Order((0.2, 0.5))))
    finally:
        hook.remove()
    assert sorted((r.member, r.fidelity) for r in reports) == [
        (member, fidelity) for member in range(3) for fidelity in (0.2, 0.5)
    ]


def test_a_step_without_memory_beside_others_is_tried_again_alone(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is to blame; when it comes again, it rests until the others have ended."""
    take_step = Descent._take_step

    def refuse(descent: Descent) -> None:
        assert trainer._pack
        if descent._settings.batch_size == 8 and len(trainer._pack._active) > 1:
            raise torch.OutOfMemoryError("too many moments")
        take_step(descent)

    monkeypatch.setattr(Descent, "_take_step", refuse)
    trainer.join(0, lora([5]), ONE_EPOCH)
    trainer.join(1, lora([5], batch_size=8), Order((0.2,)))
    (failure,) = trainer.advance()
    assert isinstance(failure, Failure)
    assert (failure.member, failure.fault, failure.shortage) == (1, "machine", None)
    trainer.join(1, lora([5], batch_size=8), Order((0.2,)))
    events = [*trainer.advance(), *trainer.advance()]
    assert [(type(event), event.member) for event in events] == [(Report, 0), (Report, 1)]
