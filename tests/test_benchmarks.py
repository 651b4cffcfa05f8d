"""The benchmarks that are quick at a small size still run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.settings import BackboneSettings
from autopeft.memory.quantities import head_params
from autopeft.method.count import count, trained_elements
from autopeft.model.backbone import meta_backbone
from autopeft.model.hub import locate
from autopeft.space import SearchSpace
from benchmarks import study_cost, study_floor, study_hf, study_ours
from benchmarks.hf_training import Form, train
from benchmarks.packed import OPTIONS
from benchmarks.study_equivalent import Equivalent, peft_equivalent
from benchmarks.throughput import SMALL as SMALL_PACKS
from benchmarks.throughput import run as run_throughput
from benchmarks.trial_variants import MINILM

pytestmark = pytest.mark.benchmark

ROOT = Path(__file__).parent.parent
TRIALS = ("ours fresh", "ours warm", "hf", "hf tuned", "lora step", "mix step")
LORA, ADAPTER = OPTIONS["lora"], OPTIONS["adapter"]


def configured(*placements) -> PeftConfig:
    return PeftConfig.of((Placement.of(*each) for each in placements), {"learning_rate": 1e-3})


@pytest.fixture(scope="module")
def meta():
    return meta_backbone(MINILM, BackboneSettings(), head="text-classification")


@pytest.fixture(scope="module")
def weights() -> str:
    return str(locate(MINILM, "model"))


def trial_cost(output: Path, *only: str) -> str:
    command = [sys.executable, "-m", "benchmarks.trial_cost", "--small", "--only", *only]
    command += ["--output", str(output), "--folder", str(output.parent / "study")]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_trial_cost_trains_the_same_parameters_everywhere_and_resumes(tmp_path: Path) -> None:
    output = tmp_path / "trial_cost.json"
    shown = trial_cost(output, *TRIALS)
    document = json.loads(output.read_text())
    trials = [row for row in document["rows"] if not row["variant"].endswith("step")]
    names = [row["variant"] for row in trials]
    assert names == ["ours fresh", "ours warm", "ours warm", "hf", "hf tuned"]
    assert len({row["trained_parameters"] for row in trials}) == 1
    for row in trials:
        parts = row["start"] + row["training"] + row["evaluation"]
        assert row["seconds"] == pytest.approx(parts)
        assert min(row["start"], row["training"], row["evaluation"]) > 0
    ratios = {
        f"ours {age} / {theirs}" for age in ("fresh", "warm") for theirs in ("hf", "hf tuned")
    }
    assert set(document["ratios"]) == ratios
    assert 0.1 < document["lora_step_ratio"] < 10
    assert 0.1 < document["mix_step_ratio"] < 10
    written = output.stat().st_mtime_ns
    assert trial_cost(output, *TRIALS) == shown
    assert output.stat().st_mtime_ns == written


def test_a_study_and_the_same_trials_of_hf_under_ray_tune(tmp_path: Path) -> None:
    output = tmp_path / "trial_cost.json"
    trial_cost(output, "study ours", "study hf", "floor")
    document = json.loads(output.read_text())
    ours, theirs = (document["study"][name] for name in ("study ours", "study hf"))
    assert [t["state"] for t in ours["trials"]] == ["complete"] * 2
    assert [t["index"] for t in theirs["trials"]] == [0, 1]
    assert all(t["equivalent"] and 0 <= t["accuracy"] <= 1 for t in theirs["trials"])
    ratio = theirs["seconds"] / ours["seconds"]
    assert document["study_ratio_without_stopping"] == pytest.approx(ratio)
    assert "study_ratio_with_stopping" not in document
    assert sum(document["where_the_time_goes"].values()) == pytest.approx(2 * ours["seconds"])
    assert document["floor_ratio"] > 1
    assert document["accuracy_differences"]["study hf"]["configurations"] == 2


def test_lora_is_its_own_equivalent(meta) -> None:
    found = peft_equivalent(configured(("lora", range(2, 6), LORA)), meta.model)
    assert sorted(set(found.ranks.values())) == [8]
    assert set(found.alphas.values()) == {16}
    assert len(found.ranks) == 8
    assert all(path.endswith(("query", "value")) for path in found.ranks)


def test_what_peft_lacks_becomes_lora_with_the_nearest_number_of_parameters(meta) -> None:
    adapter = configured(("adapter", [1, 2], ADAPTER))
    prefix = configured(("prefix", [1, 2], {"length": 8}))
    both = peft_equivalent(
        configured(("adapter", [1, 2], ADAPTER), ("lora", [0], LORA)), meta.model
    )
    assert {p.rsplit("layer.")[-1] for p in both.ranks if both.ranks[p] != 8} == {
        "1.output.dense",
        "2.output.dense",
    }
    for config, wide, off in ((adapter, 384 + 1536, 0.05), (prefix, 2 * 384, 0.0)):
        found = peft_equivalent(config, meta.model)
        trained = wide * sum(found.ranks.values())
        assert trained == pytest.approx(count(config, meta.shape).trainable, rel=off)
    assert set(peft_equivalent(prefix, meta.model).ranks) == {
        f"bert.encoder.layer.{i}.attention.self.key" for i in (1, 2)
    }


def test_lora_on_one_linear_adds_up(meta) -> None:
    wide = LORA | {"targets": ("q", "k")}
    config = configured(("lora", [3], wide), ("prefix", [3, 4], {"length": 32}))
    found = peft_equivalent(config, meta.model)
    key = "bert.encoder.layer.{}.attention.self.key"
    assert (found.ranks[key.format(3)], found.alphas[key.format(3)]) == (40, 80)
    assert (found.ranks[key.format(4)], found.alphas[key.format(4)]) == (32, 64)


def test_a_prefix_alone_on_every_layer_is_that_of_peft(meta) -> None:
    config = configured(
        ("prefix", range(3), {"length": 8}), ("prefix", range(3, 6), {"length": 32})
    )
    assert peft_equivalent(config, meta.model).prefix == 20
    some = peft_equivalent(configured(("prefix", range(3), {"length": 8})), meta.model)
    assert (some.prefix, len(some.ranks)) == (0, 3)


@pytest.mark.parametrize(
    ("placements", "exact"),
    [
        ((("lora", range(6), LORA),), True),
        ((("lora", [4], LORA), ("bitfit", [0, 5], {})), True),
        ((("bitfit", range(3), {}),), True),
        ((("prefix", range(6), {"length": 8}),), True),
        ((), True),
        ((("lora", [5], LORA), ("adapter", [5], ADAPTER), ("prefix", [4], {"length": 8})), False),
    ],
)
def test_the_model_of_hf_trains_what_the_configuration_does(
    meta, weights, placements, exact
) -> None:
    config = configured(*placements)
    model = study_hf.model_of(weights, peft_equivalent(config, meta.model), seed=0)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    expected = count(config, meta.shape).trainable + head_params(meta)
    assert trained == pytest.approx(expected, rel=0.0 if exact else 0.01)


def test_every_sample_of_the_space_has_an_equivalent_of_like_size(meta) -> None:
    space = SearchSpace.load("layer-mix").on(meta.shape, trained_elements)
    rng = np.random.default_rng(0)
    for config in (space.draw(rng).config for _ in range(20)):
        found = peft_equivalent(config, meta.model)
        widths = {
            name: sum(m.weight.shape)
            for name, m in meta.model.named_modules()
            if name in found.ranks
        }
        biases = sum(len(meta.model.get_submodule(path).bias) for path in found.biases)
        trained = sum(found.ranks[name] * widths[name] for name in found.ranks) + biases
        assert trained == pytest.approx(count(config, meta.shape).trainable, rel=0.03)


def test_hf_trains_with_a_prefix_whose_logits_come_with_a_cache(weights, meta) -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"text": ["good", "very bad indeed"] * 4, "label": [1, 0] * 4})
    equivalent = peft_equivalent(configured(("prefix", range(6), {"length": 4})), meta.model)
    form = Form(1, 4, 1e-3, 16, 0.06, 0, group_by_length=False, bf16=False)
    model = study_hf.model_of(weights, equivalent, seed=0)
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    row = train(model, weights, {"train": rows, "validation": rows}, form)
    after = [p for p in model.parameters() if p.requires_grad]
    assert 0 <= row["accuracy"] <= 1
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def plan() -> study_hf.Plan:
    form = Form(1, 32, 0.0, 64, 0.06, 0, group_by_length=True, bf16=True)
    equivalents = (Equivalent(1e-3, {"a.b": 8}, {"a.b": 16.0}), Equivalent(2e-3, prefix=4))
    return study_hf.Plan("model", "data", form, equivalents, workers=2)


def test_a_side_of_hf_goes_on_with_its_own_trials_only(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    assert not study_hf.begun(plan(), folder)
    plan().write(folder)
    assert study_hf.begun(plan(), folder)
    assert study_hf.read_plan(folder).text == plan().text
    other = replace(plan(), trials=plan().trials[:1])
    assert not study_hf.begun(other, folder)


def test_trials_of_interrupted_pieces_count_by_their_own_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    plan().write(folder)
    lines = [{"index": i, "seconds": s, "accuracy": 0.5} for i, s in ((1, 3000.0), (0, 5000.0))]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "finished.jsonl").write_text(text)
    side = study_cost.hf_side(plan(), folder, {})
    assert 4000 < side["seconds"] < 4060
    assert [row["index"] for row in side["trials"]] == [0, 1]
    assert side["trials_of_earlier_pieces"] == 2


def row(number: int, asked: float, seconds: float, ended: float) -> dict:
    report = {"epochs": 3.0, "train_seconds": 8.0, "eval_seconds": 1.0}
    return {
        "number": number,
        "asked": asked,
        "seconds": seconds,
        "ended": ended,
        "reports": [report],
    }


def test_where_the_time_goes_sums_to_the_seconds_of_all_workers() -> None:
    rows = [row(0, 5, 14, 20), row(1, 6, 15, 22), row(2, 20, 10, 31), row(3, 22, 10, 33)]
    rejected = {"number": 4, "asked": 31.0, "seconds": None, "ended": 31.5, "reports": []}
    spent = study_ours.where_the_time_goes(35.0, [*rows, rejected], saving=0.5, workers=2)
    assert spent == {
        "start": 2 * 5 + 4 + 5,
        "proposals": 1 + 1 + 1 + 1 + 0.5,
        "training": 32,
        "evaluation": 4,
        "saving": 0.5,
        "idle": 2 * 35 - 19 - 4.5 - 36 - 0.5,
    }


def side(seconds: float, *accuracies: float | None) -> dict:
    trials = [{"state": "complete", "accuracy": accuracy} for accuracy in accuracies]
    return {"seconds": seconds, "trials": trials, "where_the_time_goes": {}}


def test_the_figures_of_a_study() -> None:
    ours = side(10.0, 0.8, 0.7, 0.6)
    ours["trials"].append({"state": "rejected", "accuracy": None})
    floor = {"seconds": {"square": 4.0, "model": 5.0}}
    done = {
        "study ours": ours,
        "study ours stopped": side(5.0, 0.8, None, None),
        "study hf": side(200.0, 0.7, 0.7, None),
        "study hf tuned": side(60.0, 0.8, 0.8, 0.8),
        "floor": floor,
    }
    found = study_cost.outcome(done)
    assert found["study_ratio_without_stopping"] == 20
    assert found["study_ratio_with_stopping"] == 40
    assert found["tuned_ratio_without_stopping"] == 6
    assert found["tuned_ratio_with_stopping"] == 12
    assert found["floor_ratio"] == 5
    first = found["accuracy_differences"]["study hf"]
    assert first["configurations"] == 2
    assert first["mean"] == pytest.approx(0.05)
    assert first["standard_error"] == pytest.approx(0.05)
    stopped = found["study_sides"]["study ours stopped"]
    assert (stopped["trials"], stopped["trained_to_the_end"]) == (3, 1)


def test_the_floor_counts_what_cannot_be_avoided(meta) -> None:
    """Against the closed form of a layer: all linears once forward and once backward."""
    texts = study_floor.Texts([10, 20], [30])
    attention, ffn = 2 * 4 * 384 * 384, 2 * 2 * 384 * 1536
    head = 2 * (384 * 384 + 2 * 384)
    none = study_floor.unavoidable(meta, [configured()], texts, 1)
    lower = sum(6 * (attention * n + 4 * 384 * n * n) + ffn * (5 * n + 1) for n in (10, 20, 30))
    assert none["lower layers"] == pytest.approx(lower, rel=1e-6)
    assert none["evaluation"] == pytest.approx(head, rel=1e-3)
    whole = configured(("bitfit", range(6), {}))
    once = study_floor.unavoidable(meta, [whole], texts, 1)
    linears = sum(6 * attention * n + ffn * (5 * n + 1) for n in (10, 20))
    assert once["lower layers"] == 0
    assert once["training"] == pytest.approx(2 * linears, rel=0.03)
    twice = study_floor.unavoidable(meta, [whole, whole], texts, 3)
    assert twice["training"] == pytest.approx(6 * once["training"], rel=1e-6)
    assert twice["evaluation"] == pytest.approx(2 * once["evaluation"], rel=1e-6)


def test_depth_lowers_the_floor(meta) -> None:
    texts = study_floor.Texts([20], [20])
    parts = [
        study_floor.unavoidable(meta, [configured(("lora", [layer], LORA))], texts, 3)
        for layer in (0, 5)
    ]
    assert parts[1]["training"] < 0.3 * parts[0]["training"]
    assert parts[1]["lower layers"] > parts[0]["lower layers"] == 0


def test_rates_of_matrix_multiplication() -> None:
    rates = study_floor.rates(workers=1, seconds=0.01)
    assert set(rates) == {"model", "square"}
    assert all(1e9 < rate < 1e14 for rate in rates.values())


def test_throughput_of_packs(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    output = tmp_path / "throughput.json"
    small = replace(SMALL_PACKS, models=SMALL_PACKS.models[:1])
    wanted = ("packs", "memory", *small.models)
    document = run_throughput(output, small, "cpu", wanted)
    assert json.loads(output.read_text()) == document
    assert document["device"] == "cpu"
    assert set(document["packs"]) == {"1", "2"}
    assert document["packs"]["1"]["speedup"] == 1
    assert all(pack["samples_per_second"] > 0 for pack in document["packs"].values())
    assert document["memory_error_percent"] < 20
    written = output.stat().st_mtime_ns
    assert run_throughput(output, small, "cpu", wanted) == document
    assert output.stat().st_mtime_ns == written


def test_methods_are_trained_beside_those_of_hf_peft(tmp_path: Path) -> None:
    output = tmp_path / "methods.json"
    command = [sys.executable, "-m", "benchmarks.methods", "--small", "--only", "vera", "prefix"]
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    assert document["vera"]["count"] == 12 * (256 + 384)
    for method in ("vera", "prefix"):
        assert {"accuracy_peft", "step_ratio_frozen", "step_ratio_peft"} <= document[method].keys()
