"""`plan --fit`: settings with which a configuration fits into a memory."""

import json

import pytest
import yaml

import autopeft as package
from autopeft.core import catalog
from tests import tiny

COMMAND = ["plan", "lora", "--model", tiny.MODEL, "--batch-size", 8, "--sequence-length", 64]


@pytest.fixture(scope="module")
def peak():
    """Bytes that the configuration needs as it is."""
    size = {"batch_size": 8, "sequence_length": 64}
    return package.plan("lora", tiny.MODEL, **size)["peak_memory"]


def fit(autopeft, limit):
    return json.loads(autopeft(*COMMAND, "--fit", limit, "--json").out)["fit"]


def test_what_fits_is_left_as_it_is(autopeft, peak):
    found = fit(autopeft, peak)
    assert found["fits"]
    assert found["limit"] == found["peak_memory"] == peak
    assert found["changes"] == {"train.batch_size": 8}
    without = ["plan", "lora", "--model", tiny.MODEL, "--fit", "1GB"]
    assert "fits into 1 GB as it is" in autopeft(*without).out
    assert "fit" not in json.loads(autopeft(*COMMAND, "--json").out)


def test_the_sections_that_are_shown_make_it_fit(autopeft, peak, tmp_path):
    shown = autopeft(*COMMAND, "--fit", peak - 10_000_000).out
    head, _, snippet = shown.partition("at the peak\n")
    assert "with these sections" in head
    sections = yaml.safe_load(snippet)
    document = {**catalog.read("search_spaces", "lora")[0], **sections}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    again = ["plan", path, "--model", tiny.MODEL, "--sequence-length", 64, "--json"]
    planned = json.loads(autopeft(*again).out)
    found = fit(autopeft, peak - 10_000_000)
    assert planned["peak_memory"] == found["peak_memory"] <= peak - 10_000_000
    assert sections["train"] == found["train"]
    size, steps = (sections["train"][k] for k in ("batch_size", "gradient_accumulation_steps"))
    assert size * steps == 8
    assert found["changes"]["train.gradient_accumulation_steps"] == steps


def test_what_never_fits_tells_the_least(autopeft, peak):
    found = fit(autopeft, "1MB")
    assert not found["fits"]
    assert 1_000_000 < found["peak_memory"] < peak
    said = autopeft(*COMMAND, "--fit", "1MB")
    assert said.code == 0
    assert "does not fit into 1 MB; the least is" in said.out
    assert "quantization: nf4" in said.out


@pytest.mark.parametrize(
    ("file", "limit", "says"),
    [
        ("lora", "16 apples", "fit: expected a positive amount"),
        ("lora", "50%", "fit: per cents have no whole here"),
        ("layer-mix", "16GB", "fit: goes with a configuration"),
    ],
)
def test_wrong_limits_are_refused(autopeft, file, limit, says):
    said = autopeft("plan", file, "--model", tiny.MODEL, "--fit", limit)
    assert said.code == 2
    assert said.err.startswith(f"autopeft: {says}")


def test_long_answers_are_planned(autopeft, tiny_llama):
    command = ["plan", "lora", "--model", tiny_llama, "--batch-size", 1, "--sequence-length", 8]
    writes = [*command, "--task", "causal-lm", "--json"]
    none, few, many = (
        json.loads(autopeft(*writes, *options).out)["peak_memory"]
        for options in ([], ["--new-tokens", 1], ["--new-tokens", 400])
    )
    assert none == few < many
    for options, reason in (
        (["--task", "causal-lm", "--new-tokens", 3000], "the model takes 2048 tokens, got 3000"),
        (["--task", "text-classification", "--new-tokens", 4], "are of a model that writes text"),
    ):
        said = autopeft(*command, *options)
        assert said.code == 2
        assert said.err.startswith(f"autopeft: new_tokens: {reason}")
