"""Compares the seconds of a trial and of a study here with those of HF `Trainer` and HF peft.

Run `python -m benchmarks.trial_cost` on a machine that does nothing else. Of one trial, every
variant runs in a process of its own with one thread, and trains LoRA r 8 on q and v, the pooler and
the classifier of MiniLM on the same sentences, in batches of 32, with the same schedule, evaluated
after each epoch:

- `ours fresh`: a new process, `autopeft.train.trainer.Trainer`.
- `ours warm`: the second and third trial of such a process, as in a worker of a study.
- `hf`: a new process, `Trainer` with its defaults (float32, batches padded to their longest text,
  evaluation in batches of 8, which is faster here than 32). peft trains the classifier only;
  `modules_to_save` adds the pooler, so that both train the same parameters.
- `hf tuned`: the same with batches grouped by length, and `bf16` where that is faster.
- `lora step`: one training step of 32 texts of 64 tokens in float32, ours and peft's by turns.
- `mix step`: the same of ours with configurations of `layer-mix`, and by turns with it forward and
  backward of the frozen model to the lowest layer of the configuration.

Of a study of 32 trials the sides are those of `study_cost`; `floor` counts what cannot be avoided,
see `study_floor`. The start of a fresh variant is all of its process but training and evaluation:
imports, data, model, saving. `accuracy` is that of the validation split after the last epoch.

Every finished row and side is written at once, so that an interrupted run continues where it
stopped; delete the file of results, and the folder of the study, to start anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import study_cost
from benchmarks.hf_training import Row
from benchmarks.step_variants import lora_step, mix_step
from benchmarks.trial_variants import SMALL, Size, hf, hf_tuned, ours_fresh, ours_warm

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "trial_cost.json"
FOLDER = ROOT / "runs" / "trial_cost"
PARTS = ("start", "training", "evaluation")
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")
RATIOS = tuple(product(("ours fresh", "ours warm"), ("hf", "hf tuned")))
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
FRESH = ("ours fresh", "hf", "hf tuned")
STEPS = ("lora step", "mix step")
FIGURES = (*study_cost.RATIOS, "floor_ratio", "lora_step_ratio", "mix_step_ratio")
STUDY = (study_cost.OURS, study_cost.FLOOR, *study_cost.SIDES[1:])
VARIANTS: Mapping[str, Callable[[Size, int], list[Row]]] = {
    "ours fresh": ours_fresh,
    "ours warm": ours_warm,
    "hf": hf,
    "hf tuned": hf_tuned,
    "lora step": lora_step,
    "mix step": mix_step,
}


def in_new_process(variant: str, repeat: int, small: bool) -> list[Row]:
    """The rows of a variant; a fresh one's `seconds` are those of its whole process."""
    command = [sys.executable, "-m", "benchmarks.trial_cost", "--variant", variant]
    command += ["--seed", str(repeat), *(["--small"] if small else [])]
    environment = {**os.environ, **ENVIRONMENT}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    whole = time.perf_counter() - start
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    for row in rows:
        if variant in FRESH:
            row["seconds"] = whole
        if "training" in row:
            row["start"] = row["seconds"] - row["training"] - row["evaluation"]
    return [{"variant": variant, "repeat": repeat, **row} for row in rows]


def machine() -> dict[str, Any]:
    """What the numbers depend on; `load` is the mean number of running processes before."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    models = {line.split(": ")[-1] for line in text.splitlines() if line.startswith("model name")}
    return {
        "cores": os.cpu_count(),
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "bf16_flags": sorted({"avx512_bf16", "amx_bf16", "bf16"} & set(text.split())),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def outcome(document: Mapping[str, Any]) -> dict[str, Any]:
    """The medians of each variant that is done, quotients of seconds, the figures of the study."""
    rows: list[Row] = document["rows"]
    medians: dict[str, dict[str, float]] = {}
    for variant in dict.fromkeys(row["variant"] for row in rows):
        of_variant = [row for row in rows if row["variant"] == variant]
        names = [name for name in of_variant[0] if name not in {"variant", "repeat"}]
        medians[variant] = {name: median(row[name] for row in of_variant) for name in names}
    known = [(a, b) for a, b in RATIOS if a in medians and b in medians]
    ratios = {f"{a} / {b}": medians[a]["seconds"] / medians[b]["seconds"] for a, b in known}
    study = study_cost.outcome(document["study"])
    figures: dict[str, Any] = {"medians": medians, "ratios": ratios, **study}
    if "lora step" in medians:
        figures["lora_step_ratio"] = medians["lora step"]["ours"] / medians["lora step"]["peft"]
    mixes = [row["ratio"] for row in rows if row["variant"] == "mix step"]
    return {**figures, "mix_step_ratio": max(mixes)} if mixes else figures


def table(medians: Mapping[str, Mapping[str, float]]) -> Table:
    shown = Table(title="One trial: LoRA r 8 on q and v of MiniLM, one thread; seconds")
    shown.add_column("variant")
    for name in ("whole", *PARTS, "accuracy", "trained parameters"):
        shown.add_column(name, justify="right")
    for variant, values in medians.items():
        if variant not in STEPS:
            times = (f"{values[name]:.2f}" for name in ("seconds", *PARTS))
            trained = f"{values['trained_parameters']:,.0f}"
            shown.add_row(variant, *times, f"{values['accuracy']:.4f}", trained)
    return shown


def show(document: Mapping[str, Any]) -> None:
    console = Console(width=100)
    if (set(VARIANTS) - set(STEPS)) & document["medians"].keys():
        console.print(table(document["medians"]))
    for name, ratio in document["ratios"].items():
        console.print(f"{name}: {ratio:.3f} (the latter takes {1 / ratio:.1f} times as long)")
    for line in study_cost.lines(document):
        console.print(line)
    for name in FIGURES:
        if name in document:
            console.print(f"{name}: {document[name]:.3f}")


def run_all(output: Path, folder: Path, repeats: int, only: Sequence[str], small: bool) -> None:
    """Runs what `output` lacks of `only`."""
    size = SMALL if small else Size()
    document: dict[str, Any] = {"size": asdict(size), "machine": machine(), "rows": [], "study": {}}
    if output.is_file():
        document = json.loads(output.read_text(encoding="utf-8"))
        if document["size"] != asdict(size):
            sys.exit(f"{output} holds trials of another size; delete it or name another --output")
    done = {(row["variant"], row["repeat"]) for row in document["rows"]}
    for repeat, variant in product(range(repeats), VARIANTS):
        if variant in only and (variant, repeat) not in done:
            document["rows"] += in_new_process(variant, repeat, small)
            write(output, document)
    for name in STUDY:
        if name in only and name not in document["study"]:
            document["study"][name] = study_cost.run(
                name, document["study"], size, folder, ENVIRONMENT
            )
            write(output, document)
    show({**document, **outcome(document)})


def write(output: Path, document: Mapping[str, Any]) -> None:
    """Writes the document with the figures that follow from it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".part")
    text = json.dumps({**document, **outcome(document)}, indent=1)
    unfinished.write_text(f"{text}\n", encoding="utf-8")
    unfinished.replace(output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The seconds of trials and studies, ours and HF's."
    )
    parser.add_argument("--variant", choices=VARIANTS, help="run it here and print its rows")
    parser.add_argument("--seed", type=int, default=0, help="of --variant")
    parser.add_argument("--repeats", type=int, default=1, help="processes of each variant")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(*VARIANTS, *STUDY),
        default=(*VARIANTS, *STUDY),
        metavar="NAME",
    )
    parser.add_argument("--small", action="store_true", help="a few sentences, to try the script")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for files of the study")
    chosen = parser.parse_args()
    if chosen.variant:
        size = SMALL if chosen.small else Size()
        print(json.dumps(VARIANTS[chosen.variant](size, chosen.seed)))
    else:
        folder = chosen.folder.resolve()
        run_all(chosen.output, folder, chosen.repeats, chosen.only, chosen.small)


if __name__ == "__main__":
    main()
