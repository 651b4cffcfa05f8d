"""Broken documents, tables and files, made from whole ones at random."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import yaml

Document = dict[str, Any]

_NESTED: Any = 1
for _ in range(150):
    _NESTED = [_NESTED]

WRONG: tuple[Any, ...] = (
    None,
    "",
    "?",
    "lora\n\tr: 8",
    "\x1b[31m",
    "é" * 300,
    "<script>alert(1)</script>",
    "../../elsewhere",
    True,
    -1,
    0,
    1.5,
    1e300,
    10**30,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    {"choice": []},
    {"choice": [1, 1]},
    {"int": [8, 1]},
    {"float": [0, 1], "log": True},
    {"subset": "groups"},
    {1: 2},
    _NESTED,
)
"""What stands nowhere, or only in some places."""


def broken_document(document: Document, rng: random.Random) -> Document:
    """One or two places of a document changed; it may still mean something."""
    changed = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2))):
        rng.choice(_CHANGES)(changed, rng)
    return changed


def broken_text(text: bytes, rng: random.Random) -> bytes:
    """A text that is cut, filled or interspersed with what belongs into none."""
    place = rng.randrange(len(text) + 1)
    what = rng.choice(_INTERSPERSED)
    return rng.choice(
        (
            text[:place],
            text[:place] + what + text[place:],
            text[:place] + what + text[place + 1 :],
            text + text,
            what * 1000 + text,
            text.replace(b"\n", what),
        )
    )


def broken_command(command: Sequence[str], rng: random.Random) -> list[str]:
    """A command line with a word left out, misspelled, repeated or replaced."""
    words = list(command)
    place = rng.randrange(len(words))
    word = words[place]
    rng.choice(
        (
            lambda: words.pop(place),
            lambda: words.insert(place, word),
            lambda: words.__setitem__(place, _misspelled(word, rng)),
            lambda: words.__setitem__(place, str(rng.choice(WRONG[:17]))),
            lambda: words.insert(place, rng.choice(_OPTIONS)),
        )
    )()
    return words


_INTERSPERSED = (
    b"\x00",
    b"\xff\xfe",
    b"\t",
    b"{",
    b"]",
    b"&a *a",
    b"- ",
    b": ",
    b"!!python/x",
    b'"',
)
_OPTIONS = (
    "--trial",
    "--pick",
    "--set",
    "--set=a",
    "--storage=x://",
    "--json",
    "--fit=1",
    "--",
    "-x",
)


def _places(node: Any) -> list[tuple[Any, Any]]:
    """All containers with one of their keys."""
    if isinstance(node, dict):
        inner = [place for value in node.values() for place in _places(value)]
        return [(node, key) for key in node] + inner
    if isinstance(node, list):
        inner = [place for value in node for place in _places(value)]
        return [(node, index) for index in range(len(node))] + inner
    return []


def _replace(document: Document, rng: random.Random) -> None:
    places = _places(document)
    if places:
        node, key = rng.choice(places)
        node[key] = copy.deepcopy(rng.choice(WRONG))


def _drop(document: Document, rng: random.Random) -> None:
    places = _places(document)
    if places:
        node, key = rng.choice(places)
        del node[key]


def _rename(document: Document, rng: random.Random) -> None:
    places = [(node, key) for node, key in _places(document) if isinstance(node, dict)]
    if places:
        node, key = rng.choice(places)
        node[_misspelled(str(key), rng)] = node.pop(key)


def _move(document: Document, rng: random.Random) -> None:
    """Puts one part where another stands."""
    places = _places(document)
    if len(places) > 1:
        (node, key), (other, its) = rng.sample(places, 2)
        node[key] = copy.deepcopy(other[its])


_CHANGES: tuple[Callable[[Document, random.Random], None], ...] = (_replace, _drop, _rename, _move)


def _misspelled(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word) + 1)
    return word[:place] + rng.choice(("x", "", "-", "E", " ", "\x00")) + word[place + 1 :]


def written(document: Document) -> bytes:
    """A document as YAML."""
    return yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")
