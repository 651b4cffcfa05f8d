"""Finds and reads the YAML documents of spaces, objectives and studies by name, path or mapping."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from autopeft.core.errors import AutoPeftError, unknown

FOLDERS = ("search_spaces", "objectives", "studies")

Reference = str | Path | Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-4` is a number and a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


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
        raise AutoPeftError(f"expected a name, a path or a mapping, got {reference!r}")
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
        AutoPeftError: not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        at = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise AutoPeftError(f"{at}{error.problem}", where) from error
    except yaml.YAMLError as error:
        raise AutoPeftError(" ".join(str(error).split()), where) from error
