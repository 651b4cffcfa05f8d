from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.settings import BackboneSettings
from autopeft.method.attach import attach
from autopeft.model.backbone import Backbone, load_backbone
from autopeft.model.cache import cached_folder
from autopeft.model.hub import locate
from tests.minilm import MINILM

MEGABYTE = 2**20


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("AUTOPEFT_CACHE", str(folder))
    return folder


def load(reference: str = MINILM, n_labels: int = 3, **settings: Any) -> Backbone:
    settings = {"dtype": "bfloat16", **settings}
    form = BackboneSettings(**settings)
    return load_backbone(reference, "text-classification", form, n_labels=n_labels, device="cpu")


def conversions(cache: Path) -> list[Path]:
    return sorted(cache.glob("backbones/*/model.safetensors"))


def mappings(model: nn.Module) -> dict[str, dict[str, int]]:
    """Kilobytes of the mapped files that hold parameters of a model, by file and kind."""
    pointers = [p.data_ptr() for p in model.parameters()]
    found: dict[str, dict[str, int]] = {}
    current: dict[str, int] = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) .*?(/.*\.safetensors)?$", line)
        if head:
            start, end = (int(head[i], 16) for i in (1, 2))
            holds = head[3] and any(start <= pointer < end for pointer in pointers)
            current = found.setdefault(head[3], {}) if holds else {}
        elif line.endswith(" kB"):
            name, size, _ = line.split()
            current[name[:-1]] = current.get(name[:-1], 0) + int(size)
    return found


linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads /proc/self/smaps")


def read(model: nn.Module) -> float:
    return sum(float(p.detach().float().sum()) for p in model.parameters())


SECOND = """
import json
from tests.model.test_shared import load, mappings, read
model = load().model
print(json.dumps([read(model), mappings(model)]))
"""


@linux
def test_a_second_process_has_no_pages_of_its_own(cache: Path) -> None:
    model = load().model
    total = read(model)
    done = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, mapped = json.loads(done.stdout.splitlines()[-1])
    assert found == pytest.approx(total, rel=1e-6)
    (file,) = conversions(cache)
    pages = mapped[str(file)]
    assert pages["Rss"] > 40_000
    assert pages["Private_Clean"] + pages["Private_Dirty"] < 400
    assert pages["Anonymous"] == 0


@linux
def test_a_file_of_the_right_precision_is_mapped_as_it_is(cache: Path) -> None:
    folder = locate(MINILM, "model")
    assert folder is not None
    mapped = mappings(load(dtype="float32").model)
    assert list(mapped) == [str(folder / "model.safetensors")]
    assert conversions(cache) == []


def test_shared_weights_are_those_that_transformers_converts(cache: Path) -> None:
    shared = load().model
    cache.rename(cache.with_name("elsewhere"))
    cache.write_text("no folder")
    private = load().model
    assert cache.is_file()
    assert list(shared.state_dict()) == list(private.state_dict())
    for name, tensor in private.state_dict().items():
        assert torch.equal(shared.state_dict()[name], tensor)
    assert shared.name_or_path == private.name_or_path == str(locate(MINILM, "model"))
    assert shared.config.to_dict() == private.config.to_dict()


def test_the_head_is_not_shared(cache: Path) -> None:
    first = load().model
    first.classifier.weight.data.zero_()
    assert load().model.classifier.weight.abs().sum() > 0
    (file,) = conversions(cache)
    assert not any(name.startswith("classifier") for name in load_file(file))
    assert load(n_labels=5).model.classifier.weight.shape[0] == 5
    assert len(conversions(cache)) == 2


@linux
def test_who_writes_gets_pages_of_his_own(cache: Path) -> None:
    reader, writer = load().model, load().model
    options = {"targets": ("q", "v"), "r": 4, "lora_alpha": None, "lora_dropout": 0.0}
    config = PeftConfig.of([Placement.of("lora", [2], options)])
    before = read(reader)
    attached = attach(writer, config)
    for weight in attached.trainable().values():
        weight.data.add_(0.1)
    attached.merge()
    query = "bert.encoder.layer.2.attention.self.query.weight"
    assert not torch.equal(writer.get_parameter(query), reader.get_parameter(query))
    assert read(reader) == before == read(load().model)
    writer.bert.embeddings.word_embeddings.weight.data.zero_()
    assert read(reader) == before == read(load().model)
    (file,) = conversions(cache)
    assert mappings(writer)[str(file)]["Anonymous"] > 20_000


def test_a_changed_source_is_converted_anew(tmp_path: Path, cache: Path) -> None:
    source = locate(MINILM, "model")
    assert source is not None
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    for _ in range(2):
        load(str(folder))
        assert len(conversions(cache)) == 1
    os.utime(folder / "model.safetensors")
    load(str(folder))
    assert len(conversions(cache)) == 2


@linux
@pytest.mark.usefixtures("offline")
def test_a_model_of_the_hub_is_shared_too(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    source, commit = locate(MINILM, "model"), "0" * 40
    assert source is not None
    fetched = tmp_path / "hub" / "models--me--minilm"
    shutil.copytree(source, fetched / "snapshots" / commit)
    (fetched / "refs").mkdir()
    (fetched / "refs" / "main").write_text(commit)
    files = [mappings(load("me/minilm", dtype=dtype).model) for dtype in ("bfloat16", "float32")]
    assert [str(file) for file in conversions(cache)] == list(files[0])
    assert list(files[1]) == [str(fetched / "snapshots" / commit / "model.safetensors")]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_weights_are_not_shared(quantization: str, cache: Path) -> None:
    load(quantization=quantization)
    assert not cache.exists()


def test_what_was_used_least_recently_goes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopeft.model.cache._SHARE", 2.5 * MEGABYTE / disk(cache))

    def write(folder: Path) -> None:
        (folder / "content").write_bytes(bytes(MEGABYTE))

    for key in ("old", "new", "old", "newest"):
        assert cached_folder("things", key, MEGABYTE, write) == cache / "things" / key
        time.sleep(0.02)
    assert {entry.name for entry in cache.glob("things/*/")} == {"old", "newest"}
    assert cached_folder("things", "large", 3 * MEGABYTE, write) is None
    assert {entry.name for entry in cache.glob("things/*/")} == {"old", "newest"}


def disk(folder: Path) -> int:
    folder.mkdir()
    return shutil.disk_usage(folder).total


def test_what_was_not_finished_is_not_there(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "content").write_bytes(b"half")
        raise KeyError

    with pytest.raises(KeyError):
        cached_folder("things", "key", 4, fail)
    assert list(cache.glob("things/*/")) == []
    killed = cache / "things" / ".killed"
    killed.mkdir()
    found = cached_folder("things", "key", 4, lambda folder: None)
    assert found is not None
    assert found.is_dir()
    assert not killed.exists()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "emptied": lambda file: file.write_bytes(b""),
    "deleted": lambda file: file.unlink(),
    "without its folder": lambda file: shutil.rmtree(file.parent),
}


@pytest.mark.parametrize("name", ["content", "other", "sizes.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_anew(cache: Path, name: str, damage: str) -> None:
    def write(folder: Path) -> None:
        (folder / "content").write_bytes(b"whole")
        (folder / "other").write_bytes(b"whole too")

    def entry() -> Path:
        found = cached_folder("things", "key", 4, write)
        assert found is not None
        return found

    DAMAGE[damage](entry() / name)
    assert (entry() / "content").read_bytes() == b"whole"
    assert (entry() / "other").read_bytes() == b"whole too"
    assert [path.name for path in (cache / "things").glob("*/")] == ["key"]


def test_truncated_weights_are_converted_anew(cache: Path) -> None:
    total = read(load().model)
    (file,) = conversions(cache)
    os.truncate(file, 1000)
    assert read(load().model) == total
    assert conversions(cache) == [file]


def test_a_full_disk_is_no_obstacle(cache: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, hard))
    try:
        model = load().model
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert conversions(cache) == []
    assert read(model) == read(load().model)
    assert len(conversions(cache)) == 1


def test_one_writes_while_others_wait(cache: Path) -> None:
    written = []

    def write(folder: Path) -> None:
        written.append(folder)
        time.sleep(0.2)
        (folder / "content").write_text("done")

    def use(_: int) -> str:
        found = cached_folder("things", "key", 4, write)
        assert found is not None
        return (found / "content").read_text()

    with ThreadPoolExecutor(4) as pool:  # the lock is on the file, so threads are as processes
        assert list(pool.map(use, range(4))) == ["done"] * 4
    assert len(written) == 1
