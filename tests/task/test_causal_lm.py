"""Language models: forms of data, what is learned of them, and a study from file to export."""

from __future__ import annotations

import json
from itertools import compress
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from datasets import Dataset

import autopeft
from autopeft.core.errors import StudyError
from autopeft.model.head import IGNORED
from autopeft.task.answers import COMPARISONS, answers_of
from autopeft.task.causal_lm import connected, tokens_of
from autopeft.task.conversations import Named, Sample, samples
from autopeft.task.data import Data
from autopeft.task.registry import task_of
from tests.exports import exported
from tests.small_models import save_decoder, words_tokenizer

SPECIAL = ["<eos>", "<unk>", "<user>", "<bot>", "<system>", "<end>"]
WORDS = [*SPECIAL, "is", "the", "film", "good", "bad", "yes", "no", "really"]
PLAIN = (
    "{% for m in messages %}{{ {'user': '<user>', 'assistant': '<bot>', 'system': '<system>'}"
    "[m['role']] + ' ' + m['content'] + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot> ' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<bot> ' }}"
    "{% generation %}{{ m['content'] + ' <end>' }}{% endgeneration %}{{ ' ' }}"
    "{% else %}{{ '<user> ' + m['content'] + ' <end> ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot> ' }}{% endif %}"
)
BACKWARDS = "{% for m in messages | reverse %}{{ m['content'] + ' <end> ' }}{% endfor %}"
CHAT = [
    {"role": "user", "content": "is the film good"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "really"},
    {"role": "assistant", "content": "yes really"},
]


def tokenizer(template: str | None = None) -> tf.PreTrainedTokenizerFast:
    special = {"pad_token": "<eos>", "extra_special_tokens": ["<end>"]}
    return words_tokenizer(WORDS, **special, chat_template=template)


def lines(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def learned(
    sample: Sample, template: str | None = None, *, learns_all: bool = False
) -> tuple[str, str]:
    """All tokens, and those that are learned."""
    ids, which = tokens_of(sample, tokenizer(template), learns_all=learns_all)
    words = [WORDS[i] for i in ids]
    return " ".join(words), " ".join(compress(words, which))


def test_prompts_are_read_and_completions_learned_with_their_end() -> None:
    sample = Sample(prompt="is the film good", completion="yes")
    assert learned(sample) == ("is the film good yes <eos>", "yes <eos>")
    assert learned(sample, learns_all=True)[1] == "is the film good yes <eos>"
    assert learned(Sample(completion="the film is good"))[1] == "the film is good <eos>"


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_the_turns_of_the_assistant_are_learned(template: str) -> None:
    whole, part = learned(Sample(messages=CHAT), template)
    assert whole == (
        "<user> is the film good <end> <bot> yes <end> <user> really <end> <bot> yes really <end>"
    )
    assert part == "yes <end> yes really <end>"
    assert learned(Sample(messages=CHAT), template, learns_all=True)[1] == whole


def test_a_template_that_hides_the_answer_is_refused_unless_all_is_learned() -> None:
    with pytest.raises(StudyError, match=r"^task.loss_on: .*cannot be told.*`loss_on: all`"):
        learned(Sample(messages=CHAT), BACKWARDS)
    whole, part = learned(Sample(messages=CHAT), BACKWARDS, learns_all=True)
    assert part == whole == "yes really <end> really <end> yes <end> is the film good <end>"
    with pytest.raises(StudyError, match=r"^model: .*has no chat template"):
        learned(Sample(messages=CHAT))
    with pytest.raises(StudyError, match=r"^task.data: the chat template refuses .*of user, tool"):
        learned(Sample(messages=[CHAT[0], {"role": "tool", "content": "3"}, CHAT[1]]), PLAIN)


USER, BOT = {"role": "user", "content": "good"}, {"role": "assistant", "content": "yes"}
FORMS: dict[str, tuple[dict[str, Any], Sample]] = {
    "messages": ({"messages": [USER, BOT]}, Sample(messages=[USER, BOT])),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "good"}, {"from": "gpt", "value": "yes"}]},
        Sample(messages=[USER, BOT]),
    ),
    "system beside": (
        {"system": "the", "conversations": [USER, BOT]},
        Sample(messages=[{"role": "system", "content": "the"}, USER, BOT]),
    ),
    "as json": ({"messages": json.dumps([USER, BOT])}, Sample(messages=[USER, BOT])),
    "tools": (
        {"messages": [USER, BOT], "tools": json.dumps([{"name": "f"}])},
        Sample(messages=[USER, BOT], tools=[{"name": "f"}]),
    ),
    "completion": (
        {"prompt": "good", "completion": "yes"},
        Sample(prompt="good", completion="yes"),
    ),
    "conversational": ({"prompt": [USER], "completion": [BOT]}, Sample(messages=[USER, BOT])),
    "instruction": (
        {"instruction": "is", "input": "good", "output": "yes"},
        Sample(messages=[{"role": "user", "content": "is\n\ngood"}, BOT]),
    ),
    "no input": (
        {"instruction": "good", "input": "", "output": "yes"},
        Sample(messages=[USER, BOT]),
    ),
    "text": ({"text": "good yes"}, Sample(completion="good yes")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: str) -> None:
    row, expected = FORMS[form]
    (read,) = samples(Dataset.from_list([row]), Named(), "train")
    assert Sample.loads(read.dumps()) == Sample.loads(expected.dumps())


def test_tables_give_no_turn_what_only_another_has() -> None:
    """Arrow fills records up with nulls, which no template is to write."""
    calls = [
        {"function": {"name": "f", "arguments": {"city": "Paris"}}},
        {"function": {"name": "g", "arguments": {"x": 1}}},
    ]
    rows = [{"messages": [USER, {**BOT, "tool_calls": [call]}]} for call in calls]
    read = samples(Dataset.from_list(rows), Named(), "train")
    assert [sample.messages[1]["tool_calls"] for sample in read] == [[call] for call in calls]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "add", "input": 5, "output": 10}, ["add\n\n5", "10"]),
        ({"prompt": [USER], "completion": "yes"}, ["good", "yes"]),
    ],
)
def test_numbers_and_texts_are_turns_too(row: dict[str, Any], expected: list[str]) -> None:
    (read,) = samples(Dataset.from_list([row]), Named(), "train")
    assert [message["content"] for message in read.messages] == expected


def test_answers_of_any_script_are_compared() -> None:
    assert COMPARISONS["rouge_l"](["кошка сидит"], ["кошка спит"]) == pytest.approx(0.5)
    assert COMPARISONS["rouge_l"](["猫"], ["猫"]) == 1.0


def test_columns_may_be_named() -> None:
    table = Dataset.from_list([{"text": "is", "a": "good", "b": "yes"}])
    (read,) = samples(table, Named(prompt="a", completion="b"), "train")
    assert (read.prompt, read.completion) == ("good", "yes")
    (read,) = samples(table, Named(text="b"), "train")
    assert (read.prompt, read.completion) == ("", "yes")
    with pytest.raises(StudyError, match=r"^task.messages_column: unknown column 'messagez'"):
        samples(table, Named(messages="messagez"), "train")
    with pytest.raises(StudyError, match=r"^task: no column is known.*there are a, b$"):
        samples(table.remove_columns("text"), Named(), "train")


def test_a_template_makes_conversations() -> None:
    """Labels may be numbers and texts lists; braces in a text are left alone."""
    rows = [{"text": "a {b}", "label": 7, "of": {"parts": ["one", "two"]}}]
    template = {"assistant": "{label}", "user": "{text}, {of.parts}?", "system": "judge"}
    (read,) = samples(Dataset.from_list(rows), Named(template=template), "train")
    assert read.messages == [
        {"role": "system", "content": "judge"},
        {"role": "user", "content": "a {b}, one two?"},
        {"role": "assistant", "content": "7"},
    ]


def test_several_templates_make_as_many_conversations_of_a_row(tmp_path: Path) -> None:
    """Those of a row are on one side of every split."""
    rows = [{"paper": f"of {i}", "what": f"this {i}", "why": f"that {i}"} for i in range(40)]
    Dataset.from_list(rows).to_parquet(tmp_path / "data.parquet")
    templates = [
        {"user": f"{{paper}}: {name}?", "assistant": f"{{{name}}}"} for name in ("what", "why")
    ]
    data = {"type": "causal-lm", "data": str(tmp_path / "data.parquet")}
    loaded = task_of({**data, "messages_template": templates}).load()
    papers: list[set[str]] = []
    for split in (loaded.train, loaded.validation, loaded.test):
        asked = [Sample.loads(text).messages[0]["content"].split(": ") for text in split["text"]]
        papers.append({paper for paper, _ in asked})
        assert len(asked) == 2 * len(papers[-1])
        assert sorted({name for _, name in asked}) == ["what?", "why?"]
    assert sum(map(len, papers)) == len(set.union(*papers)) == 40
    with pytest.raises(StudyError, match=r"^task.messages_template"):
        task_of({**data, "messages_template": []})


def test_rows_that_share_a_text_by_way_of_others_are_connected() -> None:
    names = connected([["a", "x"], ["b", "y"], ["c", "x"], ["d", "z"], ["y", "a"]])
    assert len({names[0], names[1], names[2], names[4]}) == 1
    assert names[3] != names[0]


@pytest.mark.parametrize("swapped", [False, True])
def test_equal_conversations_are_on_one_side(swapped: bool, tmp_path: Path) -> None:
    rows = [{"a": f"one {i}", "b": f"ten {i % 10}"} for i in range(100)]
    Dataset.from_list(rows).to_parquet(tmp_path / "data.parquet")
    templates = [{"user": "{a}", "assistant": "yes"}, {"user": "{b}", "assistant": "no"}]
    data = {"type": "causal-lm", "data": str(tmp_path / "data.parquet")}
    loaded = task_of({**data, "messages_template": templates[:: -1 if swapped else 1]}).load()
    sides = [set(split["text"]) for split in (loaded.train, loaded.validation, loaded.test)]
    assert all(sides)
    assert len(set.union(*sides)) == sum(map(len, sides))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ({"user": "{text}"}, "^task.messages_template: must say what the role 'assistant' says"),
        ({"assistent": "{text}"}, "^task.messages_template: unknown role 'assistent'"),
        ({"assistant": "{texd}"}, "^task.messages_template: unknown column 'texd'"),
        ({"assistant": "{of.no}"}, "^task.data: .*first row 1: of.no must be a text, got None"),
    ],
)
def test_a_template_that_does_not_fit(template: dict[str, str], reason: str) -> None:
    table = Dataset.from_list([{"text": "a", "of": {"parts": ["one"]}}])
    with pytest.raises(StudyError, match=reason):
        samples(table, Named(template=template), "train")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"text": "good"}, {"text": " "}, {"text": ""}], "2 of 3 .*first row 2: text must be a"),
        ([{"messages": []}], "1 of 1 .*first row 1: messages must be a list of turns"),
        ([{"messages": [USER]}], "first row 1: no turn is the assistant's"),
        ([{"messages": [{"content": "x"}, BOT]}], "first row 1: a turn must say its role"),
        ([{"messages": "{"}], "first row 1: expected JSON"),
    ],
)
def test_rows_that_hold_nothing_are_told(rows: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(StudyError, match=f"^task.data: .*{reason}"):
        samples(Dataset.from_list(rows), Named(), "train")


def test_examples_have_the_token_that_follows_as_target(tmp_path: Path) -> None:
    rows = [{"prompt": "is the film", "completion": "really good"} for _ in range(9)]
    rows = [{**row, "prompt": row["prompt"] + " the" * i} for i, row in enumerate(rows)]
    task = task_of({"type": "causal-lm", "data": lines(tmp_path, rows), "max_length": 8})
    train = task.encode(task.load(), tokenizer()).splits["train"]
    ids, targets = train.columns["input_ids"], train.labels
    start = WORDS.index("really")
    for example, target in zip(ids, targets, strict=True):
        words = example.tolist()
        first = words.index(start) if start in words else len(words)
        after = [*words[1:], IGNORED]
        assert target.tolist() == [a if n + 1 >= first else IGNORED for n, a in enumerate(after)]
    assert train.extent["cut_examples"] == sum(
        len(r["prompt"].split()) + 3 > 8 for r in rows
    ) - _cut_elsewhere(task)
    short = task.model_copy(update={"max_length": 4})
    with pytest.raises(StudyError, match=r"^task.max_length: within 4 tokens no row of the split"):
        short.encode(task.load(), tokenizer())


def _cut_elsewhere(task: Any) -> int:
    splits = task.encode(task.load(), tokenizer()).splits
    return sum(splits[name].extent["cut_examples"] for name in ("validation", "test"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The folder of a pretrained decoder with a chat template."""
    says_anything = {"initializer_range": 0.3}
    return save_decoder(tmp_path / "model", tokenizer(PLAIN), **says_anything)


def conversations(folder: Path, model: Path) -> dict[str, Any]:
    """A study of questions with one-word answers, files in a folder."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"is the film {'really ' * (i % 5)}{word}"},
                turn,
            ]
        }
        for i in range(12)
        for word, turn in (("good", BOT), ("bad", {"role": "assistant", "content": "no"}))
    ]
    return {
        "name": "chat",
        "model": str(model),
        "task": {"type": "causal-lm", "data": lines(folder, rows), "max_length": 32},
        "space": {
            "name": "ranks",
            "place": [
                {"method": "lora", "r": {"choice": [8, 16]}, "targets": [*"qkvo", "up", "down"]}
            ],
            "train": {"learning_rate": 2e-2, "batch_size": 4},
        },
        "objectives": [
            {"name": "perplexity", "goal": "minimize", "reference": 1e3},
            {"name": "trainable_params", "goal": "minimize", "known": True, "reference": 1e8},
        ],
        "search": {"n_trials": 2, "n_finalists": 0},
        "fidelity": {"epochs": 8.0},
        "storage": f"sqlite:///{folder}/study.db",
        "output": str(folder / "out"),
    }


def test_a_study_of_conversations_ends_in_exports_that_say_the_same(
    small: Path, tmp_path: Path
) -> None:
    outcome = autopeft.run(conversations(tmp_path, small))
    assert {t.state for t in outcome.trials} == {"complete"}
    best = outcome.choose("best").trial
    assert best.values["perplexity"] < 3
    assert best.reports[-1].metrics["token_accuracy"] > 0.6
    tokens = tokenizer(PLAIN)
    asked = tokens.apply_chat_template(
        [{"role": "user", "content": "is the film bad"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said, logits = {}, {}
    auto = tf.AutoModelForCausalLM
    for form, model in exported(outcome, best.number, auto, small, tmp_path):
        with torch.no_grad():
            logits[form] = model(**asked).logits
            said[form] = model.generate(**asked, max_new_tokens=2, do_sample=False)[0].tolist()
    assert torch.allclose(logits["native"], logits["peft"], atol=1e-5)
    assert torch.allclose(logits["native"], logits["merged"], atol=1e-4)
    assert said["native"] == said["peft"] == said["merged"]
    assert [WORDS[i] for i in said["peft"][-2:]] == ["no", "<end>"]


def test_answers_are_compared_with_those_that_are_wanted(small: Path, tmp_path: Path) -> None:
    """An objective of answers makes the model give them; they are those of `generate` alone."""
    study = conversations(tmp_path, small)
    study["objectives"][0] = {"name": "exact_match", "goal": "maximize", "reference": 0.0}
    study["search"]["baselines"] = ["head-only"]
    study["task"]["own_metrics"] = {"hits": {"function": "tests.task.own_training:share_of_yes"}}
    outcome = autopeft.run(study)
    untrained = outcome.trials[0]
    assert untrained.values == {"exact_match": 0.0, "trainable_params": 0.0}
    assert untrained.reports[-1].step == 0
    assert untrained.trains_nothing
    assert not outcome.trials[1].trains_nothing
    best = outcome.choose("best").trial
    assert best.values["exact_match"] == 1.0
    metrics = best.reports[-1].metrics
    assert {metrics["rouge_l"], metrics["chrf"], metrics["hits"]} == {1.0}
    folder = autopeft.export(outcome, tmp_path / "merged", trial=best.number, format="merged")
    model = tf.AutoModelForCausalLM.from_pretrained(folder)
    tokens = tokenizer(PLAIN)
    for word, answer in (("good", "yes"), ("bad", "no")):
        asked = tokens(f"<user> is the film really really {word} <end> <bot>", return_tensors="pt")
        said = model.generate(**asked, max_new_tokens=2, do_sample=False)[0].tolist()
        assert [WORDS[i] for i in said[-2:]] == [answer, "<end>"]


def test_prompts_for_answers(tmp_path: Path) -> None:
    """The last turn is asked for; an end of a turn ends the answer, as the end of text does."""
    task = task_of({"type": "causal-lm", "data": "x", "predict_with_generate": True})
    rows = [{"messages": CHAT}, {"messages": CHAT[:2]}]
    rows = [Sample(messages=row["messages"]).dumps() for row in rows]
    table = Dataset.from_dict({"text": rows})
    data = Data(train=table, validation=table, test=table, label_names=())
    for template in (PLAIN, MARKED):
        encoded = task.encode(data, tokenizer(template)).splits
        assert encoded["train"].answers is None
        answers = encoded["test"].answers
        assert answers is not None
        words = [" ".join(WORDS[i] for i in prompt) for prompt in answers.prompts]
        first = "<user> is the film good <end> <bot>"
        assert words == [f"{first} yes <end> <user> really <end> <bot>", first]
        assert answers.texts == ["yes really", "yes"]
        assert [WORDS[i] for i in answers.ends] == ["<eos>", "<end>"]
        assert answers.max_new_tokens == 3
    texts = Dataset.from_dict({"text": [Sample(completion="good").dumps()] * 2})
    data = Data(train=texts, validation=texts, test=texts, label_names=())
    with pytest.raises(StudyError, match=r"^task.data: 2 of 2 rows of the split 'validation' have"):
        task.encode(data, tokenizer(PLAIN))


@pytest.mark.parametrize(
    ("options", "longest"),
    [
        ({"type": "causal-lm", "max_length": 40}, 40),
        ({"type": "causal-lm", "max_length": 40, "max_new_tokens": 50}, 50),
        ({"type": "seq2seq-lm", "max_length": 40, "max_target_length": 30}, 30),
        ({"type": "text-classification"}, 0),
    ],
)
def test_how_long_answers_may_be_is_known_without_data(
    options: dict[str, Any], longest: int
) -> None:
    task = task_of({"data": "x", **options})
    assert task.new_tokens == 0
    assert task.asked(["exact_match"]).new_tokens == longest


@pytest.mark.parametrize(("asked", "given"), [(None, 2), (3, 3)])
def test_answers_are_no_longer_than_texts_unless_they_are_to_be(
    asked: int | None, given: int
) -> None:
    row = ([1, 2, 3, 4, 5], [False, True, True, True, True])
    answers = answers_of("test", [row], tokenizer(PLAIN), max_length=2, max_new_tokens=asked)
    assert answers.max_new_tokens == given
