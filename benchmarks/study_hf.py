"""One side of the comparison of studies: HF `Trainer` and HF peft under plain Ray Tune.

`python -m benchmarks.study_hf FOLDER` runs the trials of `FOLDER/plan.json` that
`FOLDER/finished.jsonl` lacks, each as a function on one core in a process of its own, with the
defaults of Tune. A finished trial is a line that is written at once.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.hf_training import Form, Row, train
from benchmarks.study_equivalent import Equivalent

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

_PLAN, _FINISHED = "plan.json", "finished.jsonl"


@dataclass(frozen=True)
class Plan:
    """What the trials of this side share, and what each of them trains.

    Attributes:
        model: folder of the backbone.
        data: folder of a `DatasetDict` with the splits `train` and `validation`.
        form: of each trial; its learning rate is replaced by that of the trial.
        trials: one for each configuration.
        workers: trials at a time.
    """

    model: str
    data: str
    form: Form
    trials: tuple[Equivalent, ...]
    workers: int

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _PLAN).write_text(self.text, encoding="utf-8")

    @property
    def text(self) -> str:
        """The plan as it is written."""
        return json.dumps(asdict(self))


def begun(plan: Plan, folder: Path) -> bool:
    """Whether the trials that `folder` holds are those of `plan`."""
    path = folder / _PLAN
    return path.is_file() and path.read_text(encoding="utf-8") == plan.text


def read_plan(folder: Path) -> Plan:
    document = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
    form, trials = Form(**document.pop("form")), document.pop("trials")
    return Plan(form=form, trials=tuple(Equivalent(**trial) for trial in trials), **document)


def finished(folder: Path) -> list[Row]:
    """The finished trials in the order in which they ended, each with its `index`."""
    path = folder / _FINISHED
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def model_of(folder: str, equivalent: Equivalent, seed: int) -> nn.Module:
    """The pretrained model in float32 with a fresh head; all that is not trained is frozen.

    With LoRA peft copies the head as modules to save, with a prefix the classifier; what it does
    not copy is trained in place.
    """
    from peft import get_peft_model
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.requires_grad_(False)
    in_place = [model.get_submodule(path).get_parameter("bias") for path in equivalent.biases]
    config = _peft_config(equivalent)
    if not equivalent.ranks:
        in_place += model.bert.pooler.parameters()
    if config is None:
        in_place += model.classifier.parameters()
    wrapped: nn.Module = model if config is None else get_peft_model(model, config)
    for parameter in in_place:
        parameter.requires_grad_(True)
    return wrapped


def _peft_config(equivalent: Equivalent) -> PeftConfig | None:
    from peft import LoraConfig, PrefixTuningConfig, TaskType

    if equivalent.prefix:
        return PrefixTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=equivalent.prefix)
    if not equivalent.ranks:
        return None
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        target_modules=list(equivalent.ranks),
        rank_pattern=dict(equivalent.ranks),
        alpha_pattern=dict(equivalent.alphas),
        modules_to_save=["pooler"],
    )


def trial(plan: Plan, index: int) -> Row:
    """One trial from its imports to its end; an error is part of the row."""
    start = time.perf_counter()
    try:
        row = _trained(plan, plan.trials[index])
    except Exception as error:
        row = {"error": f"{type(error).__name__}: {error}"}
    return {"index": index, "seconds": time.perf_counter() - start, **row}


def _trained(plan: Plan, equivalent: Equivalent) -> Row:
    from datasets import load_from_disk

    model = model_of(plan.model, equivalent, plan.form.seed)
    form = replace(plan.form, learning_rate=equivalent.learning_rate)
    return train(model, plan.model, load_from_disk(plan.data), form)


def trainable(config: Mapping[str, Any], folder: str) -> dict[str, float]:
    """The function that Tune calls; the line is one write, so that two never mix."""
    row = trial(read_plan(Path(folder)), config["index"])
    line = f"{json.dumps(row)}\n".encode()
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
    file = os.open(Path(folder) / _FINISHED, flags)
    os.write(file, line)
    os.close(file)
    return {"accuracy": row.get("accuracy", 0.0)}


def run(folder: Path) -> None:
    """Runs what is missing."""
    import ray
    from ray import tune

    plan, done = read_plan(folder), {row["index"] for row in finished(folder)}
    missing = [index for index in range(len(plan.trials)) if index not in done]
    if not missing:
        return
    ray.init("local", num_cpus=plan.workers, include_dashboard=False, log_to_driver=False)
    tune.Tuner(
        tune.with_resources(partial(trainable, folder=str(folder)), {"cpu": 1}),
        param_space={"index": tune.grid_search(missing)},
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description="HF Trainer and HF peft under Ray Tune.")
    parser.add_argument("folder", type=Path)
    run(parser.parse_args().folder.resolve())


if __name__ == "__main__":
    main()
