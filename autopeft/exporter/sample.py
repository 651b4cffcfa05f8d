"""The part of a card's code that has the model say something of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import BaseImageProcessor, PreTrainedTokenizerBase

from autopeft.model.backbone import Backbone
from autopeft.model.head import (
    Choices,
    Criterion,
    ManyLabels,
    NextTokens,
    OneLabel,
    Spans,
    TargetTokens,
    TokenLabels,
    Value,
)


@dataclass(frozen=True)
class Sample:
    """Code that asks a model about a batch, line by line.

    Attributes:
        given: what it is asked about.
        read: makes `inputs` of that with `tokenizer` or `processor`.
        said: what its `outputs` mean, tensors or arrays by name.
        generated: what it says by itself instead, where it can.
    """

    given: str
    read: str
    said: str
    generated: str = ""


_TEXTS = 'texts = ["One text.", "Another one, which is a little longer."]'
_READ = 'inputs = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")'
_BEST = 'outputs["logits"].argmax(-1).tolist()'
_LABELS = f"labels = [config.id2label[i] for i in {_BEST}]"
_GENERATED = "answers = tokenizer.batch_decode(ids, skip_special_tokens=True)"

_SAMPLES: Mapping[type[Criterion], Sample] = {
    OneLabel: Sample(_TEXTS, _READ, _LABELS),
    ManyLabels: Sample(
        _TEXTS,
        _READ,
        'marks = (outputs["logits"] > 0).tolist()\n'
        "labels = [[config.id2label[i] for i, on in enumerate(row) if on] for row in marks]",
    ),
    Value: Sample(_TEXTS, _READ, 'values = outputs["logits"].squeeze(-1).tolist()'),
    TokenLabels: Sample(
        _TEXTS, _READ, f"labels = [[config.id2label[i] for i in row] for row in {_BEST}]"
    ),
    Choices: Sample(
        'question, choices = "A question?", ["One answer.", "Another one, which is longer."]',
        "pairs = [question] * len(choices), choices\n"
        'inputs = tokenizer(*pairs, truncation=True, padding=True, return_tensors="pt")\n'
        "inputs = {name: each[None] for name, each in inputs.items()}",
        f"answers = [choices[i] for i in {_BEST}]",
    ),
    Spans: Sample(
        'questions = ["A question?", "Another one?"]\n'
        'texts = ["A text with its answer.", "Another one, which is a little longer."]',
        'inputs = tokenizer(\n    questions, texts, truncation="only_second", padding=True, '
        'return_tensors="pt"\n)',
        'ends = (outputs[f"{end}_logits"].argmax(-1).tolist() for end in ("start", "end"))\n'
        'spans = zip(inputs["input_ids"].tolist(), *ends)\n'
        "answers = [tokenizer.decode(ids[first : last + 1]) for ids, first, last in spans]",
    ),
    NextTokens: Sample(
        _TEXTS,
        _READ,
        'last = inputs["attention_mask"].sum(-1) - 1\n'
        'best = outputs["logits"][range(len(last)), last].argmax(-1)\n'
        "tokens = [tokenizer.decode(i) for i in best.tolist()]",
        "ids = model.generate(**inputs, max_new_tokens=20)\n"
        f'ids = ids[:, inputs["input_ids"].shape[1] :]\n{_GENERATED}',
    ),
    TargetTokens: Sample(
        _TEXTS,
        f'{_READ}\nstart = inputs["input_ids"][:, :1] * 0 + config.decoder_start_token_id\n'
        'inputs["decoder_input_ids"] = start',
        f"tokens = [tokenizer.decode(row) for row in {_BEST}]",
        f"ids = model.generate(**inputs, max_new_tokens=20)\n{_GENERATED}",
    ),
}
_IMAGES = Sample(
    'from PIL import Image\nimages = [Image.open("an-image.png")]',
    'inputs = processor(images, return_tensors="pt")',
    _LABELS,
)
_CONVERSATIONS = Sample(
    'questions = ["One question.", "Another one, which is a little longer."]\n'
    'conversations = [[{"role": "user", "content": question}] for question in questions]',
    "inputs = tokenizer.apply_chat_template(\n    conversations, add_generation_prompt=True, "
    'padding=True, return_tensors="pt", return_dict=True\n)',
    _SAMPLES[NextTokens].said,
    _SAMPLES[NextTokens].generated,
)


def reads(backbone: Backbone, *, generates: bool) -> str:
    """Code that makes `tokenizer` or `processor` of the folder `FOLDER`.

    Texts that the model continues, where it `generates`, are to end together.
    """
    if isinstance(backbone.reader, BaseImageProcessor):
        return _loading("processor", "AutoImageProcessor", "")
    in_front = generates and isinstance(backbone.criterion, NextTokens)
    side = ', padding_side="left"' if in_front else ""
    return _loading("tokenizer", "AutoTokenizer", side)


def sample_of(backbone: Backbone) -> Sample:
    """The code for the task of a backbone."""
    reader, kind = backbone.reader, type(backbone.criterion)
    if isinstance(reader, BaseImageProcessor):
        return _IMAGES
    talks = isinstance(reader, PreTrainedTokenizerBase) and bool(reader.chat_template)
    return _CONVERSATIONS if talks and kind is NextTokens else _SAMPLES[kind]


def arranged(*parts: str) -> str:
    """Code with the imports of all parts in front."""
    lines = "\n".join(parts).splitlines()
    imports = sorted({line for line in lines if line.startswith(("import ", "from "))})
    return "\n".join([*imports, "", *(line for line in lines if line not in imports)])


def _loading(name: str, auto: str, options: str) -> str:
    return f'from transformers import {auto}\n{name} = {auto}.from_pretrained("FOLDER"{options})'
