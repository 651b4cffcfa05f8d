"""Every block of the documentation does what it says, with small models in place of large ones.

A block with a title is written to that file. YAML is a study, a part of one, or a space; Python is
run; of shells every command of autopeft is, and all else is parsed. What pages read and do not
write, such as pictures, lies there before.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autopeft.api import run as running
from autopeft.cli import main
from autopeft.core.catalog import parse
from autopeft.space.space import SearchSpace
from autopeft.study.spec import StudySpec, load_spec
from tests import tiny
from tests.small_models import save_decoder, save_viewer, words_tokenizer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = {
    "search.n_trials": 3,
    "search.n_finalists": 0,
    "task.max_train_samples": 16,
    "task.max_eval_samples": 16,
    "fidelity.epochs": 1,
    "engine.type": "inline",
    "device": "cpu",
}
STAYS = ("dashboard",)
"""Commands that go on until somebody ends them."""
TEMPLATE = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' <eos> ' }}{% endfor %}"
STUDY = {"name": "part", "model": "m", "task": {"data": "d"}, "space": "lora"}


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the quickstart's results are, for all pages that run it."""
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture
def here(tmp_path: Path, quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what pages read, in which studies are small."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs", "quickstart").symlink_to(quickstart)
    (index,) = (b for b in blocks(ROOT / "docs" / "index.md") if b.title == "reviews.csv")
    Path("reviews.csv").write_text(index.text, encoding="utf-8")
    for kind, shade in (("cat", 40), ("dog", 200)):
        Path("pictures", kind).mkdir(parents=True)
        for i in range(10):
            pixels = np.full((16, 16, 3), shade + i, np.uint8)
            Image.fromarray(pixels).save(Path("pictures", kind, f"{i}.png"))
    for label, texts in (("good", tiny.GOOD), ("bad", tiny.BAD)):
        Path("films", label).mkdir(parents=True)
        for i in range(12):
            Path("films", label, f"{i}.txt").write_text(f"{texts[i % 3]}, take {i}")
    prepare = running.prepare
    monkeypatch.setattr(
        running, "prepare", lambda study, changes=None: prepare(study, {**SMALL, **(changes or {})})
    )
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small models by the names of those that pages name."""
    folder = tmp_path_factory.mktemp("models")
    words = ["<eos>", "<unk>", "user", "assistant", "yes", "no", "praise?", "film", "a"]
    tokenizer = words_tokenizer(words, chat_template=TEMPLATE)
    return {
        "FacebookAI/roberta-base": str(tiny.folder_of(tiny.MODEL)),
        "HuggingFaceTB/SmolLM2-135M-Instruct": str(
            save_decoder(folder / "chat", tokenizer, num_hidden_layers=4)
        ),
        "google/vit-base-patch16-224": str(save_viewer(folder / "viewer")),
    }


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups(default="")) for found in BLOCK.finditer(page.read_text("utf-8"))]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of autopeft in a script, split into words."""
    for line in text.replace("\\\n", " ").replace(".venv/bin/", "").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words[:1] == ["autopeft"] and words[1] not in STAYS:
                yield words[1:]


def check_yaml(block: Block) -> None:
    document = parse(block.text, block.title or "page")
    if isinstance(document, list):
        document = {"place": document}
    if "place" in document:
        SearchSpace.load(document)
    elif document.keys() <= {*StudySpec.model_fields}:
        load_spec({**STUDY, "objectives": "accuracy-params", **document})
    else:
        assert block.title, "neither a space nor a part of a study"


RUN = """
import json, sys
from autopeft.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["autopeft", *words]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, words
"""


def run(script: list[list[str]], alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process, or in one of its own that finds packages of the folder."""
    if alone and script:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(ROOT)])}
        asked = [sys.executable, "-c", RUN, json.dumps(script)]
        done = subprocess.run(asked, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    for words in script:
        monkeypatch.setattr(sys, "argv", ["autopeft", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, words


def install(project: str) -> None:
    """What `pip install .` does for entry points."""
    tomllib = pytest.importorskip("tomllib")
    told = tomllib.loads(project)["project"]
    folder = Path(f"{told['name']}-{told['version']}.dist-info")
    folder.mkdir()
    lines = [
        line
        for group, points in told["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    head = f"Metadata-Version: 2.1\nName: {told['name']}\nVersion: {told['version']}\n"
    (folder / "METADATA").write_text(head)


def do(block: Block, names: dict[str, Any], alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.title:
        Path(block.title).parent.mkdir(parents=True, exist_ok=True)
        Path(block.title).write_text(block.text, encoding="utf-8")
    if block.language == "yaml":
        check_yaml(block)
    elif block.language == "toml":
        install(block.text)
    elif block.language == "python":
        code = compile(block.text, block.title or "page", "exec")
        if not block.title:
            exec(code, names)
    elif block.language == "bash":
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        run([] if block.title else [*commands(block.text)], alone, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_does_what_it_says(
    page: Path, here: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = blocks(page)
    alone, names = any(block.language == "toml" for block in found), {"__name__": "page"}
    for block in found:
        text = block.text
        for name, folder in models.items():
            text = text.replace(name, folder)
        do(Block(block.language, block.title, text), names, alone, monkeypatch)


def test_the_notebook_runs(here: Path) -> None:
    notebook = json.loads((ROOT / "docs" / "first_study.ipynb").read_text("utf-8"))
    names: dict[str, Any] = {"__name__": "notebook"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    for cell in cells:
        exec("".join(cell["source"]), names)
        assert cell["outputs"] == []


def test_every_fence_is_a_block() -> None:
    """None has a form that the tests above overlook."""
    for page in PAGES:
        fences = re.findall(r"^```", page.read_text("utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), page


def test_troubleshooting_quotes_what_autopeft_says() -> None:
    sources = " ".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text("utf-8"))
        for path in (ROOT / "autopeft").rglob("*.py")
    )
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    told = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(told) > 8
    for text in told:
        for part in re.split(r"…|'[^']*'", text):
            assert part.strip(" :;?") in sources, text
