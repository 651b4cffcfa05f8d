"""What a declaration of a PEFT method is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, TypeVar

from autopeft.core.config import LEARNING_RATE
from autopeft.core.errors import AutoPeftError, unknown
from autopeft.core.options import Number, Option, Size, option

GATING = "use_gating"
"""The option of those methods that can have a gate."""
GATES = (GATING, "adaptive")
"""The options with which the text says how much a placement does."""

Declared = TypeVar("Declared", bound="Declaration")


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What may be said of a placement of one method; an instance says it of one placement.

    The fields of a subclass are the options of the method, in the order in which they are decided.
    In Python an instance is a placement of the DSL: a value, a domain or, where left out, the kind
    of the option stands in each field. `closed` gives an instance in which all are values.

    Attributes:
        method: its name in documents and registries.
        mathematics: of a package's own method, `module:class` of its `Method`.
        takes_more: whether it has options beside those that are declared, in `own`.
        where: in which layers the placement stands; None where that is left out.
        learning_rate: of its tensors; None where it is that of the training.
    """

    method: ClassVar[str]
    mathematics: ClassVar[str] = ""
    takes_more: ClassVar[bool] = False
    where: Any = None
    learning_rate: float | None = option(Number(None, above=0, null="that of the training"))

    @classmethod
    @cache
    def options(cls) -> Mapping[str, Option]:
        """The options by name."""
        named = {f.name: f.default for f in fields(cls) if isinstance(f.default, Option)}
        last = {name: named.pop(name) for name in (GATING, LEARNING_RATE) if name in named}
        return {**named, **last}

    @classmethod
    @cache
    def size_option(cls) -> str | None:
        """The option that says how big a placement is, if any."""
        return next((name for name, kind in cls.options().items() if isinstance(kind, Size)), None)

    @classmethod
    def completed(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The options of a configuration, those filled in that follow from others."""
        return options

    @classmethod
    def said(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """What a configuration tells of the options: what follows from others is filled in.

        Null is left out, and so are defaults of options that came `later`.
        """
        kinds = cls.options()
        return {
            name: value
            for name, value in cls.completed(options).items()
            if value is not None and not (name in kinds and kinds[name].is_left_out(value))
        }

    @classmethod
    def closed(cls: type[Declared], options: Mapping[str, Any]) -> Declared:
        """The options of a configuration, checked and in canonical form; defaults are filled in.

        Raises:
            AutoPeftError: an option that is unknown, missing, impossible or still open.
        """
        more = {name: value for name, value in options.items() if name not in cls.options()}
        if more and not cls.takes_more:
            raise AutoPeftError(unknown("option", next(iter(more)), cls.options()))
        values: dict[str, Any] = {"own": tuple(sorted(more.items()))} if more else {}
        for name, kind in cls.options().items():
            try:
                values[name] = kind.check_closed(options.get(name, kind.default))
            except AutoPeftError as error:
                raise error.inside(name) from None
        return cls(**cls.completed(values))

    def to_dict(self) -> dict[str, Any]:
        """The placement as a document of the DSL, without what is left out."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "where"}
        where = {} if self.where is None else {"where": self.where}
        given = {name: value for name, value in said.items() if not isinstance(value, Option)}
        return {"method": self.method, **given, **where}

    def words(self) -> str:
        """The closed options in a report: method, size, and what differs from the default."""
        rate = "" if self.learning_rate is None else f" lr {self.learning_rate:.2g}"
        return self._words() + rate

    def _words(self) -> str:
        """All but the learning rate."""
        size = self.size_option()
        said = [self.method] if size is None else [self.method, str(getattr(self, size))]
        for name, kind in self.options().items():
            value = getattr(self, name)
            if name not in (size, LEARNING_RATE) and value != kind.default:
                said.append(f"{name}={','.join(value) if isinstance(value, tuple) else value}")
        return " ".join(said)
