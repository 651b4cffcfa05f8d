"""What a language model learns from, in the forms in which it is written down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import Dataset

from autopeft.core.errors import StudyError, shown, unknown
from autopeft.task.rows import Row, read_rows, text_at

MESSAGES_COLUMNS = ("messages", "conversations", "conversation", "chat", "dialogue")
PAIR_COLUMNS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("input", "output"),
)
INSTRUCTION_COLUMNS = (("instruction", "output"), ("instruction", "response"))
TEXT_COLUMNS = ("text", "content", "document")

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""ShareGPT's and others' words for who speaks."""

_SYSTEM = "system"
_SPOKEN = (_SYSTEM, "user", "assistant")
"""Roles of a template, in the order in which they speak."""

_BRACES = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Sample:
    """One thing to learn: a conversation, a prompt with its completion, or a text.

    Attributes:
        messages: turns as chat templates take them; empty where it is no conversation.
        tools: that the conversation may call, as chat templates take them.
        prompt: what comes before the completion.
        completion: or the whole text, where there is no prompt.
    """

    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Any] = ()
    prompt: str = ""
    completion: str = ""

    @classmethod
    def loads(cls, text: str) -> Sample:
        """The sample that `dumps` wrote."""
        return cls(**json.loads(text))

    def dumps(self) -> str:
        """The sample as text, the same for equal samples."""
        return json.dumps(vars(self), sort_keys=True, ensure_ascii=False)


Reader = Callable[[Row], Sample]
"""Raises ValueError where a row holds nothing to learn."""


@dataclass(frozen=True)
class Named:
    """Which columns hold what; None means the obvious ones.

    Attributes:
        template: what each role says, with the names of columns in braces, instead of columns.
    """

    messages: str | None = None
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    template: Mapping[str, str] | None = None


def samples(table: Dataset, named: Named, split: str) -> list[Sample]:
    """The rows of a table.

    Raises:
        StudyError: no column holds what is learned, or a row holds nothing of it.
    """
    return read_rows(table, split, _reader(table, named))


def _reader(table: Dataset, named: Named) -> Reader:
    """How a row of the table is read."""
    known = table.column_names
    if named.template is not None:
        return partial(_templated, template=_checked(named.template, known))
    given = {
        key: getattr(named, key)
        for key in ("messages", "prompt", "completion", "text")
        if getattr(named, key) is not None
    }
    for key, name in given.items():
        if name not in known:
            raise StudyError(unknown("column", name, known), f"task.{key}_column")
    if "messages" in given:
        return partial(_conversation, name=given["messages"])
    if "completion" in given:
        return partial(_pair, prompt=given.get("prompt"), completion=given["completion"])
    if "text" in given:
        return partial(_pair, prompt=None, completion=given["text"])
    if "prompt" in given:
        reason = f"is missing beside prompt_column; name one of {', '.join(known)}"
        raise StudyError(reason, "task.completion_column")
    obvious: list[tuple[set[str], Reader]] = [
        *(({name}, partial(_conversation, name=name)) for name in MESSAGES_COLUMNS),
        *(({a, b}, partial(_instruction, instruction=a, output=b)) for a, b in INSTRUCTION_COLUMNS),
        *(({a, b}, partial(_pair, prompt=a, completion=b)) for a, b in PAIR_COLUMNS),
        *(({name}, partial(_pair, prompt=None, completion=name)) for name in TEXT_COLUMNS),
    ]
    for columns, read in obvious:
        if columns <= {*known}:
            return read
    keys = "messages_column, completion_column (with prompt_column) or text_column"
    reason = f"no column is known to hold conversations or texts: name one as {keys}"
    raise StudyError(f"{reason}; there are {', '.join(known)}", "task")


def _checked(template: Mapping[str, str], columns: Sequence[str]) -> Mapping[str, str]:
    """The template.

    Raises:
        StudyError: it has another role, none for the assistant, or a column that is not there.
    """
    key = "task.messages_template"
    for role in template:
        if role not in _SPOKEN:
            raise StudyError(unknown("role", role, _SPOKEN), key)
    if "assistant" not in template:
        raise StudyError("must say what the role 'assistant' says, which is learned", key)
    for name in (name for text in template.values() for name in _BRACES.findall(text)):
        if not {name, name.partition(".")[0]} & {*columns}:
            raise StudyError(unknown("column", name, columns), key)
    return template


def _templated(row: Row, template: Mapping[str, str]) -> Sample:
    def filled(found: re.Match[str]) -> str:
        return text_at(row, found[1])

    said = [(role, template[role]) for role in _SPOKEN if role in template]
    return Sample(
        messages=[{"role": role, "content": _BRACES.sub(filled, text)} for role, text in said]
    )


def _conversation(row: Row, name: str) -> Sample:
    turns = row[name]
    if isinstance(turns, str):
        turns = _parsed(turns)
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"{name} must be a list of turns, got {shown(turns)}")
    messages = [_message(turn) for turn in turns]
    if isinstance(row.get(_SYSTEM), str) and messages[0]["role"] != _SYSTEM and row[_SYSTEM]:
        messages.insert(0, {"role": _SYSTEM, "content": row[_SYSTEM]})
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("no turn is the assistant's")
    tools = row.get("tools") or ()
    return Sample(
        messages=messages, tools=_parsed(tools) if isinstance(tools, str) else _without_gaps(tools)
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON, got {shown(text)}: {error}") from error


def _without_gaps(value: Any) -> Any:
    """A value without the keys that tables give to all records once a single one has them."""
    if isinstance(value, Mapping):
        return {key: _without_gaps(inner) for key, inner in value.items() if inner is not None}
    return [_without_gaps(inner) for inner in value] if isinstance(value, list) else value


def _message(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise ValueError(f"a turn must be a mapping with role and content, got {shown(turn)}")
    turn = _without_gaps(turn)
    if "from" in turn:
        turn["role"] = turn.pop("from")
    if "value" in turn:
        turn["content"] = turn.pop("value")
    role = turn.get("role")
    if not isinstance(role, str):
        raise ValueError(f"a turn must say its role, got {shown(dict(turn))}")
    if not isinstance(turn.get("content", ""), str | list) or not (turn.keys() - {"role"}):
        raise ValueError(f"the content of a turn must be a text, got {shown(turn.get('content'))}")
    return {**turn, "role": _ROLES.get(role, role), "content": turn.get("content", "")}


def _instruction(row: Row, instruction: str, output: str) -> Sample:
    """A turn of the user, with its input below it, and the answer."""
    given = row.get("input")
    has_input = given is not None and bool(str(given).strip())
    asked = [text_at(row, instruction), *([text_at(row, "input")] if has_input else [])]
    question = "\n\n".join(asked)
    answer = text_at(row, output)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    system = [{"role": _SYSTEM, "content": row[_SYSTEM]}] if row.get(_SYSTEM) else []
    return Sample(messages=[*system, *turns])


def _pair(row: Row, prompt: str | None, completion: str) -> Sample:
    if prompt is not None and isinstance(row[prompt], list):
        said = row[completion]
        if isinstance(said, str) and said.strip():
            said = [{"role": "assistant", "content": said}]
        if not isinstance(said, list):
            raise ValueError(f"{completion} must be turns or a text, got {shown(said)}")
        turns = [*row[prompt], *said]
        return _conversation({"messages": turns, "tools": row.get("tools")}, "messages")
    before = "" if prompt is None else text_at(row, prompt)
    return Sample(prompt=before, completion=text_at(row, completion))
