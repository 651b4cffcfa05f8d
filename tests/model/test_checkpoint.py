from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from autopeft.core.errors import StudyError
from autopeft.core.settings import BackboneSettings
from autopeft.core.validation import validated
from autopeft.model.backbone import (
    check_checkpoint,
    load_backbone,
    load_tokenizer,
    meta_backbone,
)
from autopeft.model.loaded import check_layers
from tests import backbones

FLOAT32 = BackboneSettings(dtype="float32")


def load(reference: str, n_labels: int = 2) -> tf.PreTrainedModel:
    return load_backbone(
        reference, "text-classification", FLOAT32, n_labels=n_labels, device="cpu"
    ).model


def plan(reference: str) -> tf.PreTrainedModel:
    return meta_backbone(reference, FLOAT32).model


def check(reference: str) -> None:
    check_checkpoint(reference, meta_backbone(reference, FLOAT32))


def write_adapter(folder: Path) -> None:
    model = tf.AutoModelForCausalLM.from_pretrained(folder)
    adapter = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    adapter.save_pretrained(folder)


@pytest.mark.parametrize("use", [load, plan, load_tokenizer, check])
def test_a_folder_with_an_adapter_is_refused(
    use: Callable[[str], object], tiny_llama: Path
) -> None:
    write_adapter(tiny_llama)
    with pytest.raises(StudyError, match=r"^model: .*adapter_config.json.*merge"):
        use(str(tiny_llama))


def test_a_fetched_snapshot_with_an_adapter_is_refused(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_adapter(tiny_llama)
    repository = tmp_path / "hub" / "models--somebody--llama"
    shutil.copytree(tiny_llama, repository / "snapshots" / "c0ffee", ignore=lambda *_: ["hub"])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(StudyError, match=r"^model: .*c0ffee' holds an adapter"):
        plan("somebody/llama")


def test_layers_that_differ_from_the_configuration_are_refused() -> None:
    plain, adapted = backbones.tiny("bert"), backbones.tiny("bert")
    check_layers("m", plain, backbones.tiny("bert"))
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["query"]), adapted)
    with pytest.raises(StudyError, match=r"^model: 'm' is not loaded as .*self\.query"):
        check_layers("m", adapted, plain)


def without_weights(folder: Path) -> Path:
    """Leaves other files that a training writes."""
    torch.save({}, folder / "training_args.bin")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    return folder


def truncated(folder: Path) -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    return file


def cut_in_its_header(folder: Path) -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    return file


def pointer(folder: Path) -> Path:
    file = folder / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return file


def pickled_in_part(folder: Path) -> Path:
    torch.save(load_file(folder / "model.safetensors"), file := folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    file.write_bytes(file.read_bytes()[:-100])
    return file


def in_shards(folder: Path) -> Path:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(names.values()):
        part = {n: t for n, t in tensors.items() if names[n] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def without_a_shard(folder: Path) -> Path:
    in_shards(folder)
    (folder / "model-1.safetensors").unlink()
    return folder / "model-1.safetensors"


def with_a_broken_shard(folder: Path) -> Path:
    in_shards(folder)
    file = folder / "model-1.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    return file


def without_an_index(folder: Path) -> Path:
    index = in_shards(folder)
    index.write_text("[]")
    return index


@pytest.mark.parametrize(
    "damage",
    [
        without_weights,
        truncated,
        cut_in_its_header,
        pointer,
        pickled_in_part,
        without_a_shard,
        with_a_broken_shard,
        without_an_index,
    ],
)
def test_weights_that_cannot_be_loaded_are_named_before_they_are(
    damage: Callable[[Path], Path], tiny_llama: Path
) -> None:
    check(str(tiny_llama))
    file = damage(tiny_llama)
    with pytest.raises(StudyError, match=rf"^model: '{file}' "):
        check(str(tiny_llama))


def test_weights_in_shards_are_loaded(tiny_llama: Path) -> None:
    whole = load(str(tiny_llama)).state_dict()
    in_shards(tiny_llama)
    check(str(tiny_llama))
    loaded = load(str(tiny_llama)).state_dict()
    assert all(torch.equal(loaded[name], whole[name]) for name in whole)


def change_config(folder: Path, **changes: Any) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(folder)


@pytest.mark.parametrize("known", [True, False])
def test_code_that_comes_with_a_model_does_not_run(
    known: bool, tiny_llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = tiny_llama / "ran"
    (tiny_llama / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    autos = ("AutoConfig", "AutoModelForSequenceClassification", "AutoTokenizer")
    own = {"auto_map": dict.fromkeys(autos, "own.Own")}
    reference = change_config(tiny_llama, **own, model_type="llama" if known else "own")
    for use in (plan, load_tokenizer, load):
        if known:
            use(reference)
        else:
            with pytest.raises(
                StudyError, match="needs its own code, which runs only if the study says"
            ):
                use(reference)
    assert not ran.exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("use", [load, plan])
@pytest.mark.parametrize(
    "stored", [{"quant_method": "gptq", "bits": 4}, {"load_in_4bit": True}, {"quant_method": "fp8"}]
)
def test_a_quantized_checkpoint_is_refused(
    stored: dict[str, Any], use: Callable[[str], object], tiny_llama: Path
) -> None:
    reference = change_config(tiny_llama, quantization_config=stored)
    with pytest.raises(StudyError, match=r"^model: .*quantized already \(quantization_config"):
        use(reference)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": ["llama"]},
        {"model_type": None},
        {"hidden_size": 0},
        {"hidden_size": -32},
        {"hidden_size": "32"},
        {"num_attention_heads": 0},
        {"num_attention_heads": -4},
        {"num_hidden_layers": "x"},
        {"num_hidden_layers": 0},
        {"vocab_size": 0},
        {"hidden_act": "nope"},
        {"dtype": "nope"},
        {"pad_token_id": 99999},
    ],
    ids=str,
)
def test_a_config_that_means_nothing_is_refused(changes: dict[str, Any], tiny_llama: Path) -> None:
    with pytest.raises(StudyError, match=rf"^model: '{tiny_llama}' "):
        plan(change_config(tiny_llama, **changes))


@pytest.mark.parametrize("content", ["null", "[]", "3", '"x"', "{", ""])
def test_a_config_that_is_no_mapping_is_refused(content: str, tiny_llama: Path) -> None:
    (tiny_llama / "config.json").write_text(content)
    for use in (plan, load_tokenizer):
        with pytest.raises(StudyError, match=r"^model: .*cannot be used"):
            use(str(tiny_llama))


def test_the_head_of_another_task_is_drawn_anew(tiny_llama: Path) -> None:
    heads = {n: load(str(tiny_llama), n_labels=n).get_parameter("score.weight") for n in (2, 3)}
    config = tf.AutoConfig.from_pretrained(tiny_llama, num_labels=2, pad_token_id=0)
    classifier = tf.LlamaForSequenceClassification.from_pretrained(tiny_llama, config=config)
    torch.nn.init.ones_(classifier.score.weight)
    classifier.save_pretrained(tiny_llama)
    for n_labels, head in heads.items():
        assert torch.equal(load(str(tiny_llama), n_labels).get_parameter("score.weight"), head)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_the_kind_of_problem_of_another_task_is_forgotten(problem: str, tiny_llama: Path) -> None:
    model = load(change_config(tiny_llama, problem_type=problem), n_labels=3)
    assert model.config.problem_type == "single_label_classification"
    ids = torch.tensor([[2, 3, 4], [3, 3, 4]])
    assert model(ids, labels=torch.tensor([2, 0])).loss.isfinite()


def test_float16_is_refused_with_the_reason() -> None:
    with pytest.raises(StudyError, match=r"^dtype: .*vanish in float16; bfloat16"):
        validated(BackboneSettings, {"dtype": "float16"})
