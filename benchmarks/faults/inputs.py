"""Broken inputs, and what commands say of them."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers as tf

from autopeft.core.catalog import names, read
from benchmarks.faults.mutations import (
    Document,
    broken_command,
    broken_document,
    broken_text,
    written,
)
from benchmarks.rows import Row

SECONDS, BYTES = 60, 6 * 2**30
"""What a command may take of time and address space to find out that an input is broken."""

LOADED = ("autopeft.api.plan", "autopeft.api.export", "autopeft.engine.inline")
"""What commands would import anew in every process."""

WORDS = ["<pad>", "<unk>", "good", "bad", "fine", "dull", "film", "book", "1", "2", "3"]


@dataclass(frozen=True)
class Broken:
    """Some inputs of a kind, by the seed of their mutations."""

    kind: str
    seed: int
    n: int


@dataclass(frozen=True)
class Case:
    """A command and the files that it finds, by name within its folder."""

    command: list[str]
    files: Mapping[str, bytes]


def refused(order: Broken) -> Row:
    """How many inputs were refused, how many were none after all, and which ended otherwise."""
    from autopeft.cli import main as command

    for module in LOADED:
        import_module(module)
    rng = random.Random(f"{order.kind} {order.seed}")
    counts = {"refused": 0, "accepted": 0}
    wrong = []
    for _ in range(order.n):
        case = KINDS[order.kind](rng)
        ended = _ended(case, command)
        if ended["wrong"]:
            wrong.append({**ended, "command": case.command})
            _keep(case, order.kind, len(wrong))
        else:
            counts["accepted" if ended["code"] == 0 else "refused"] += 1
    return {**counts, "wrong": wrong}


def _ended(case: Case, command: Callable[[], None]) -> dict[str, Any]:
    """How a command ends, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in case.files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        before, began = _listed(folder), time.monotonic()
        process = os.fork()
        if not process:
            _run(case.command, Path(folder), command)
        _, status = os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status)
        said = (Path(folder) / ".err").read_text(errors="replace")
        faults = {
            "exit code": code not in (0, 2),
            "traceback": "Traceback" in said,
            "no line": code == 2 and len(said.strip().splitlines()) != 1,
            "files": code == 2 and _listed(folder) != before,
        }
        wrong = [name for name, is_so in faults.items() if is_so]
        seconds = round(time.monotonic() - began, 1)
        return {"code": code, "wrong": wrong, "said": said[-600:] if wrong else "", "s": seconds}


def _run(command: list[str], folder: Path, main: Callable[[], None]) -> None:
    """In the new process: never returns."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.alarm(SECONDS)
    os.chdir(folder)
    for stream, name in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = ["autopeft", *command]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _listed(folder: str) -> list[str]:
    return sorted(str(p) for p in Path(folder).rglob("*") if p.name not in (".out", ".err"))


def _keep(case: Case, kind: str, number: int) -> None:
    """Leaves what ended otherwise where it can be tried again."""
    folder = Path("runs") / "faults" / f"{kind}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "command.json").write_text(json.dumps(case.command))


@lru_cache
def model() -> Mapping[str, bytes]:
    """The files of a BERT of four layers."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(["[CLS]", "[SEP]", "[MASK]", *WORDS]))
        vocabulary = {w: i for i, w in enumerate(["[CLS]", "[SEP]", "[MASK]", *WORDS])}
        tokenizer = tf.BertTokenizerFast(
            vocab=vocabulary, unk_token="<unk>", pad_token="<pad>", model_max_length=128
        )
        tokenizer.save_pretrained(folder)
        config = tf.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=128,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            tf.BertModel(config).save_pretrained(folder)
        (Path(folder) / "vocab.txt").unlink()
        return {f"model/{p.name}": p.read_bytes() for p in Path(folder).iterdir()}


def table() -> bytes:
    rows = [
        f"{a} {b} {i},{a}" for i in (1, 2, 3) for a in ("good", "bad") for b in ("film", "book")
    ]
    return "\n".join(["text,label", *rows, ""]).encode()


def study() -> Document:
    """A study of four short trainings."""
    return {
        "name": "broken",
        "model": "model",
        "task": {"type": "text-classification", "data": "data.csv", "metric": "accuracy"},
        "space": "layer-mix",
        "objectives": "accuracy-params",
        "limits": {"trainable_params": 100000},
        "search": {"n_trials": 4, "seed": 0, "baselines": ["lora"], "n_finalists": 0},
        "fidelity": {"epochs": [1, 2], "stopper": "halving", "reduction": 2},
        "engine": {"type": "inline", "resources": {"cpu": 1}},
        "deploy": "native",
        "device": "cpu",
    }


def _files(**files: bytes) -> dict[str, bytes]:
    return {**model(), "data.csv": table(), "study.yaml": written(study()), **files}


@lru_cache
def _catalog(kind: str) -> list[Document]:
    return [dict(read(kind, name)[0]) for name in sorted(names(kind))]


def _of_space(rng: random.Random) -> Case:
    document = broken_document(rng.choice(_catalog("search_spaces")), rng)
    return Case(
        ["plan", "space.yaml", "--model", "model"], _files(**{"space.yaml": written(document)})
    )


def _of_study(rng: random.Random) -> Case:
    return Case(
        ["plan", "study.yaml"], _files(**{"study.yaml": written(broken_document(study(), rng))})
    )


def _of_objectives(rng: random.Random) -> Case:
    document = broken_document(rng.choice(_catalog("objectives")), rng)
    return _planned({**study(), "objectives": document})


def _of_task(rng: random.Random) -> Case:
    task = broken_document(study()["task"], rng)
    return _planned({**study(), "task": task})


def _planned(document: Document) -> Case:
    return Case(["plan", "study.yaml"], _files(**{"study.yaml": written(document)}))


def _of_configuration(rng: random.Random) -> Case:
    config = {
        "placements": [
            {"method": "lora", "layers": [0, 1], "options": {"r": 4, "targets": ["q", "v"]}},
            {"method": "adapter", "layers": [1], "options": {"size": 8, "at": "ffn"}},
        ],
        "train": {"learning_rate": 1e-3, "batch_size": 8},
    }
    files = _files(**{"config.yaml": written(broken_document(config, rng))})
    return Case(["plan", "config.yaml", "--model", "model"], files)


def _of_text(rng: random.Random) -> Case:
    name = rng.choice(("space", "study"))
    whole = rng.choice(_catalog("search_spaces")) if name == "space" else study()
    command = ["plan", f"{name}.yaml", *(["--model", "model"] if name == "space" else [])]
    return Case(command, _files(**{f"{name}.yaml": broken_text(written(whole), rng)}))


def _of_data(rng: random.Random) -> Case:
    rows = [line.split(",") for line in table().decode().splitlines()]
    for _ in range(rng.choice((1, 2, 3))):
        row = rng.choice(rows)
        rng.choice(
            (
                lambda row=row: row.clear(),
                lambda row=row: row.append("more"),
                lambda row=row: row.__setitem__(slice(None), [""] * len(row)),
                lambda row=row: row.__setitem__(slice(0, 1), ['"']),
                lambda: rows.sort(),
                lambda: rows.__delitem__(slice(rng.randint(1, len(rows)), None)),
            )
        )()
    content = "\n".join(",".join(row) for row in rows).encode()
    return Case(["run", "study.yaml"], _files(**{"data.csv": broken_text(content, rng)}))


def _of_model(rng: random.Random) -> Case:
    files = _files()
    name = rng.choice([name for name in files if name.startswith("model/")])
    if name.endswith(".json") and rng.random() < 0.7:
        document = broken_document(json.loads(files[name]), rng)
        files[name] = json.dumps(document, default=str).encode()
    elif rng.random() < 0.3:
        del files[name]
    else:
        files[name] = broken_text(files[name], rng)
    return Case(["run", "study.yaml", "--n-trials", "1"], files)


def _of_command(rng: random.Random) -> Case:
    command = rng.choice(
        (
            ["plan", "study.yaml"],
            ["plan", "lora", "--model", "model", "--batch-size", "8", "--fit", "16GB"],
            ["plan", "layer-mix", "--model", "model", "--sequence-length", "16"],
            ["status", "study.yaml", "--json"],
            ["pareto", "study.yaml", "--plot", "front.png"],
            ["report", "study.yaml", "--output", "page"],
            ["export", "study.yaml", "--pick", "best", "--format", "native", "--output", "x"],
            ["export", "study.yaml", "--trial", "0", "--output", "x"],
            ["list", "spaces", "--json"],
            ["run", "study.yaml", "--set", "search.n_trials=0", "--engine", "inline"],
        )
    )
    return Case(broken_command(command, rng), _files())


KINDS: Mapping[str, Callable[[random.Random], Case]] = {
    "space": _of_space,
    "study": _of_study,
    "objectives": _of_objectives,
    "task": _of_task,
    "configuration": _of_configuration,
    "text": _of_text,
    "data": _of_data,
    "model": _of_model,
    "command": _of_command,
}


def orders(n: int, at_once: int = 25) -> Iterator[Broken]:
    """So many inputs of each kind."""
    for kind in KINDS:
        for seed in range(-(-n // at_once)):
            yield Broken(kind, seed, at_once)
