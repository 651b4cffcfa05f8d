"""A study goes on with the model and data that it was begun with, and exports what it trained."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

import autopeft
from autopeft.api.run import prepare
from autopeft.core.errors import AutoPeftError, ExportError, StudyError
from autopeft.model import fingerprint
from tests import tiny

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film")


def write_model(folder, words=WORDS, seed=0, **changes):
    """A small BERT with random weights."""
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    config = tf.BertConfig(vocab_size=len(words), num_attention_heads=2, **{**sizes, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tf.BertModel(config).save_pretrained(folder)
    return str(folder)


def write_data(path, labels=("neg", "pos"), last="film"):
    rows = [(f"{('bad', 'good')[i % 2]} film {i}", labels[i % 2]) for i in range(40)]
    return str(tiny.write_table(path, [*rows, (f"good {last}", labels[1])]))


def study(folder, model, data):
    return {
        "name": "begun",
        "model": model,
        "task": {"data": data, "max_length": 8},
        "space": {"place": [{"method": "lora", "r": {"choice": [2, 4]}}]},
        "objectives": "accuracy-params",
        "search": {"sampler": "random", "n_trials": 1, "n_finalists": 0},
        "fidelity": {"epochs": 1.0},
        "storage": f"sqlite:///{folder}/study.db",
        "output": str(folder / "out"),
    }


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A study of one trial, whose data are gone since."""
    folder = tmp_path_factory.mktemp("begun")
    document = study(folder, write_model(folder / "model"), write_data(folder / "data.csv"))
    autopeft.run(document)
    (folder / "data.csv").rename(folder / "moved.csv")
    shutil.copytree(folder / "model", folder / "copy")
    return document, folder


def goes_on(document, changes=None):
    prepared = prepare(document, changes)
    return prepared.open(prepared.task.load())


def test_what_is_the_same_under_another_name_goes_on(begun):
    document, folder = begun
    changes = {"task.data": str(folder / "moved.csv"), "space.description": "in other words"}
    changes["model"] = str(folder / "copy")
    assert len(goes_on(document, changes).trials()) == 1


OTHER = [
    ({"labels": ("neg", "good")}, """labels is "['neg', 'pos']" there"""),
    ({"last": "bad"}, "digest is"),
]


@pytest.mark.parametrize(("change", "told"), OTHER)
def test_other_data_are_refused(change, told, begun, tmp_path):
    data = write_data(tmp_path / "other.csv", **change)
    with pytest.raises(StudyError, match="begun with another") as caught:
        goes_on(begun[0], {"task.data": data})
    assert told in str(caught.value)


OTHER_MODELS = [
    ({"seed": 1}, "weights"),
    ({"hidden_size": 32}, "config"),
    ({"words": (*WORDS[:4], "bad", "good", "film")}, "tokenizer"),
]


@pytest.mark.parametrize(("change", "told"), OTHER_MODELS)
def test_another_model_is_refused(change, told, begun, tmp_path):
    document, folder = begun
    model = write_model(tmp_path / "model", **change)
    here = {"model": model, "task.data": str(folder / "moved.csv")}
    with pytest.raises(StudyError, match=f"begun with another model: name is .* {told} is"):
        goes_on(document, here)


def test_a_large_file_is_known_by_blocks_from_its_first_to_its_last_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE", 100)
    monkeypatch.setattr(fingerprint, "BLOCK", 4)
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(1000))
    same = fingerprint._content(file)
    for place in (0, 999):
        content = bytearray(1000)
        content[place] = 1
        file.write_bytes(content)
        assert fingerprint._content(file) != same


def test_what_has_got_a_default_since_is_what_the_default_says(begun):
    document, folder = begun
    data = {"task.data": str(folder / "moved.csv")}
    record = goes_on(document, data).record
    identity = record.user_attrs["identity"]
    old = {key: value for key, value in identity["task"].items() if key != "validation_fraction"}
    record.set_user_attr("identity", {**identity, "task": old})
    goes_on(document, data)
    with pytest.raises(StudyError, match=r"another task: validation_fraction is '0\.1' there"):
        goes_on(document, {**data, "task.validation_fraction": 0.2})
    record.set_user_attr("identity", {**identity, "task": {**old, "of_old": 1}})
    with pytest.raises(StudyError, match="another task: "):
        goes_on(document, data)
    record.set_user_attr("identity", identity)


@pytest.fixture
def outcome(begun):
    return autopeft.open_study({**begun[0], "model": "whatever the file says now"})


def test_an_export_needs_no_data_and_asks_the_record_for_the_model(outcome, tmp_path):
    folder = autopeft.export(outcome, tmp_path / "merged", trial=0, format="merged")
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "pos"}


def test_an_export_refuses_a_model_that_has_changed(outcome, begun, tmp_path):
    file = Path(outcome.spec.model) / "model.safetensors"
    own = file.read_bytes()
    file.write_bytes(own[:-1] + bytes([own[-1] ^ 1]))
    with pytest.raises(AutoPeftError, match=r"another model: .*weights is"):
        autopeft.export(outcome, tmp_path / "out", trial=0)
    file.write_bytes(own)


def test_an_export_refuses_tensors_that_are_not_those_of_its_trial(outcome, begun, tmp_path):
    document, folder = begun
    file = next(folder.glob("out/trials/*/0/peft.safetensors"))
    own = file.read_bytes()
    changes = {"storage": f"sqlite:///{folder}/second.db", "search.seed": 7}
    changes["task.data"] = str(folder / "moved.csv")
    second = autopeft.run(document, changes=changes)
    assert file.read_bytes() == own
    (trial,) = second.trials
    assert load_file(f"{trial.folder}/peft.safetensors").keys() == load_file(file).keys()
    for content, told in [
        (next(folder.glob(f"out/trials/{second.record[:8]}/0/*")).read_bytes(), "are not those of"),
        (own[: len(own) // 2], "cannot be read"),
    ]:
        file.write_bytes(content)
        with pytest.raises(ExportError, match=f"tensors .*{told}"):
            autopeft.export(outcome, tmp_path / "out", trial=0)
    file.write_bytes(own)
