"""Finds and reads the YAML documents of spaces, objectives and studies by name, path or mapping."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from autopeft.core.errors import AutoPeftError, shown, unknown

FOLDERS = ("search_spaces", "objectives", "studies")

Reference = str | Path | Mapping[str, Any]


LONGEST = 200_000
"""Characters of a document, what its aliases stand for written out."""

DEEPEST = 64
"""Lists and mappings of a document inside one another."""


class _Loader(yaml.SafeLoader):
    """YAML of bounded size in which `1e-4` is a number, a date a text, and a key a text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._size = 0
        self._sizes: dict[str, int] = {}  # of what an alias stands for

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self._size
        self._depth += 1
        if self._depth > DEEPEST and isinstance(event, yaml.CollectionStartEvent):
            raise _broken(f"more than {DEEPEST} lists and mappings inside one another", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not isinstance(event, yaml.AliasEvent):
            self._size += 1 + (len(event.value) if isinstance(event, yaml.ScalarEvent) else 0)
            self._sizes[event.anchor] = self._size - before
        elif event.anchor in self._sizes:
            self._size += self._sizes[event.anchor]
        else:
            raise _broken(f"*{event.anchor} stands inside of what it stands for", event)
        if self._size > LONGEST:
            raise _broken(f"more than {LONGEST:,} characters with what aliases stand for", event)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            raise _broken(f"{shown(node.value)} is no {kind}", node) from None
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            raise _broken(f"{shown(value)} is no text that can be written", node)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _broken(f"the key {shown(key)} is no text; write it in quotes", key_node)
            if key in seen:
                raise _broken(f"key {shown(key)} stands twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _broken(reason: str, at: Any) -> yaml.MarkedYAMLError:
    """The error at an event or a node."""
    return yaml.MarkedYAMLError(problem=reason, problem_mark=at.start_mark)


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def folder(kind: str) -> Path:
    """Where the documents of `kind` (one of `FOLDERS`) lie: in the wheel, else in the checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_catalog" / kind
    return shipped if shipped.is_dir() else package.parent / kind


def names(kind: str) -> list[str]:
    """The names of all documents of `kind`, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.yaml"))


def find(kind: str, reference: str | Path) -> Path:
    """The file that `reference`, a path or a name of the catalog, stands for.

    Raises:
        AutoPeftError: no such file or name; lists the known names and the nearest.
    """
    if not isinstance(reference, str | Path):
        raise AutoPeftError(f"expected a name, a path or a mapping, got {shown(reference)}")
    path = Path(reference)
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        if path.is_file():
            return path
        raise AutoPeftError("no such file", str(path))
    if path.stem in names(kind):
        return folder(kind) / f"{path.stem}.yaml"
    singular = {"search_spaces": "space", "objectives": "objectives", "studies": "study"}[kind]
    raise AutoPeftError(unknown(singular, reference, names(kind)))


def place(kind: str, reference: Reference) -> str:
    """How errors call what `reference` stands for: its file, or the name of a mapping.

    Raises:
        AutoPeftError: no such file or name.
    """
    if isinstance(reference, Mapping):
        return str(reference.get("name", ""))
    return str(find(kind, reference))


def read(kind: str, reference: Reference) -> tuple[dict[str, Any], str]:
    """The mapping that `reference` stands for and its `place`.

    Raises:
        AutoPeftError: not found, empty, not YAML, or not a mapping.
    """
    where = place(kind, reference)
    if isinstance(reference, Mapping):
        return dict(reference), where
    try:
        document = parse(Path(where).read_text(encoding="utf-8"), where)
    except (OSError, UnicodeDecodeError) as error:
        raise AutoPeftError(f"cannot be read: {error}", where) from error
    if document is None:
        raise AutoPeftError("the file is empty", where)
    if not isinstance(document, dict):
        raise AutoPeftError(f"expected a mapping, got {type(document).__name__}", where)
    document.setdefault("name", Path(where).stem)
    return document, where


def parse(text: str, where: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        AutoPeftError: not YAML, or too large; says the line.
    """
    if len(text) > LONGEST:
        reason = f"expected at most {LONGEST:,} characters, got {len(text):,}"
        raise AutoPeftError(reason, where)
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        at = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise AutoPeftError(f"{at}{error.problem}", where) from error
    except yaml.YAMLError as error:
        raise AutoPeftError(" ".join(str(error).split()), where) from error
