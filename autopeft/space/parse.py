"""Documents become trees of nodes; every error names the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from autopeft.core.errors import AutoPeftError, SpaceError, unknown
from autopeft.core.methods import DECLARATIONS, Declaration
from autopeft.core.options import REQUIRED, Option
from autopeft.space.domain import SCOPES, Choice, Range, Subset, Tree
from autopeft.space.layers import PATTERNS

Check = Callable[[Any, str], Any]

_DOMAINS = ("choice", "int", "float", "subset")
_DOMAIN_KEYS = {"choice": (), "subset": (), "int": ("log", "step"), "float": ("log", "step")}


def parse_node(raw: Any, where: str, check: Check) -> Any:
    """A value or a domain of values that pass `check(value, where)`, which returns the value."""
    if not isinstance(raw, Mapping):
        return check(_tupled(raw), where)
    kind = domain_kind(raw, where)
    if kind == "choice":
        items = parse_items(raw, where, lambda item, at: parse_node(item, at, check))
        return Choice(items, _scope(raw, where))
    if kind == "subset":
        return _subset(raw, where, check)
    return _range(raw, kind, where, check)


def domain_kind(raw: Mapping[str, Any], where: str) -> str:
    """Which domain a mapping states.

    Raises:
        SpaceError: none of them, or with keys that the domain does not have.
    """
    kinds = [key for key in raw if key in _DOMAINS]
    if len(kinds) != 1:
        first = next(iter(raw), "")
        raise SpaceError(
            f"expected a value or a domain; {unknown('domain', first, _DOMAINS)}", where
        )
    known = (kinds[0], *_DOMAIN_KEYS[kinds[0]], "per")
    for key in raw:
        if key not in known:
            raise SpaceError(unknown("key", key, known), where)
    return kinds[0]


def parse_items(raw: Mapping[str, Any], where: str, parse: Check) -> tuple[Any, ...]:
    """The items of a choice: at least one, no two alike."""
    items = raw["choice"]
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise SpaceError(f"expected a list of at least one item, got {items!r}", f"{where}.choice")
    parsed = tuple(parse(item, f"{where}.choice[{i}]") for i, item in enumerate(items))
    seen = [(type(item), item) for item in parsed]
    for i, item in enumerate(seen):
        if item in seen[:i]:
            raise SpaceError(f"{items[i]!r} stands twice", f"{where}.choice")
    return parsed


def _subset(raw: Mapping[str, Any], where: str, check: Check) -> Subset:
    items = raw["subset"]
    if items == "groups":
        raise SpaceError("subset: groups fits `where` and `layers.tuned` only", where)
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise SpaceError(f"expected a list of at least one item, got {items!r}", f"{where}.subset")
    whole = check(_tupled(items), f"{where}.subset")
    if len(whole) != len(items):
        raise SpaceError("an item stands twice", f"{where}.subset")
    return Subset(whole, _scope(raw, where))


def _range(raw: Mapping[str, Any], kind: str, where: str, check: Check) -> Range:
    integer = kind == "int"
    bounds = raw[kind]
    number = int if integer else (int, float)
    if (
        not isinstance(bounds, Sequence)
        or len(bounds) != 2
        or any(isinstance(b, bool) or not isinstance(b, number) for b in bounds)
    ):
        raise SpaceError(f"expected [low, high], got {bounds!r}", f"{where}.{kind}")
    low, high = bounds
    if low > high:
        raise SpaceError(f"the range [{low}, {high}] is empty", f"{where}.{kind}")
    log, step = raw.get("log", False), raw.get("step", 1 if integer else None)
    if not isinstance(log, bool):
        raise SpaceError(f"must be true or false, got {log!r}", f"{where}.log")
    if log and low <= 0:
        raise SpaceError(f"a log range starts above 0, got {low}", f"{where}.{kind}")
    if step is not None and (isinstance(step, bool) or not isinstance(step, number) or step <= 0):
        raise SpaceError(f"must be a positive number, got {step!r}", f"{where}.step")
    for i, bound in enumerate(bounds):
        check(bound if integer else float(bound), f"{where}.{kind}[{i}]")
    return Range(low, high, log, step, integer, _scope(raw, where))


def _scope(raw: Mapping[str, Any], where: str) -> Any:
    scope = raw.get("per")
    if scope is not None and scope not in SCOPES:
        raise SpaceError(unknown("scope", scope, SCOPES), f"{where}.per")
    return scope


def _tupled(raw: Any) -> Any:
    return tuple(_tupled(item) for item in raw) if isinstance(raw, list | tuple) else raw


def parse_placement(raw: Any, where: str) -> Any:
    """One entry of `place`: a placement, or a choice between placements, lists and none."""
    if isinstance(raw, Declaration):
        raw = raw.to_dict()
    if not isinstance(raw, Mapping):
        raise SpaceError(f"expected a mapping with a method, got {raw!r}", where)
    if "method" in raw:
        return _placement(raw, where)
    if domain_kind(raw, where) != "choice":
        raise SpaceError("expected a placement or a choice between placements", where)
    return Choice(parse_items(raw, where, _alternative), _scope(raw, where))


def _alternative(raw: Any, where: str) -> tuple[Any, ...]:
    if raw is None or raw == "none":
        return ()
    items = raw if isinstance(raw, list | tuple) else [raw]
    return tuple(parse_placement(item, where) for item in items)


def _placement(raw: Mapping[str, Any], where: str) -> Tree:
    method = raw["method"]
    if isinstance(method, Mapping):
        raise SpaceError(
            "must be a name; put the choice around the whole placement", f"{where}.method"
        )
    if not isinstance(method, str) or method not in DECLARATIONS:
        raise SpaceError(unknown("method", method, DECLARATIONS), f"{where}.method")
    options = DECLARATIONS[method].options()
    for key in raw:
        if key not in (*options, "method", "where"):
            raise SpaceError(unknown(f"option of {method}", key, [*options, "where"]), where)
    entries: list[tuple[str, Any]] = [("method", method)]
    for key, option in options.items():
        if key in raw:
            entries.append((key, parse_node(raw[key], f"{where}.{key}", _option_check(option))))
        elif option.default is REQUIRED:
            raise SpaceError(f"{method} needs {key}: {option.expects}", where)
    if "where" in raw:
        entries.append(("where", parse_where(raw["where"], f"{where}.where")))
    return Tree(tuple(entries))


def _option_check(option: Option) -> Check:
    def check(value: Any, where: str) -> Any:
        try:
            return option.check(value)
        except AutoPeftError as error:
            raise SpaceError(error.reason, where) from None

    return check


def parse_where(raw: Any, where: str) -> Any:
    """In which groups or layers a placement stands."""
    return once(_where(raw, where), where)


def once(node: Any, where: str) -> Any:
    """The node, if all of it is decided once for the space.

    Raises:
        SpaceError: a domain in it is to be decided per group or layer.
    """
    if isinstance(node, Choice | Range | Subset) and node.per not in (None, "space"):
        raise SpaceError(
            f"is decided once for the space; per: {node.per} fits options of placements", where
        )
    if isinstance(node, Choice):
        for i, item in enumerate(node.items):
            once(item, f"{where}.choice[{i}]")
    if isinstance(node, Tree):
        for key, child in node.entries:
            once(child, f"{where}.{key}")
    return node


def _where(raw: Any, where: str) -> Any:
    if not isinstance(raw, Mapping):
        return _selection(raw, where)
    if dict(raw) == {"subset": "groups"}:
        return Subset(None)
    if set(raw) in ({"first"}, {"last"}):
        ((end, n),) = raw.items()
        return Tree(((end, parse_node(n, f"{where}.{end}", _count)),))
    if "choice" in raw and domain_kind(raw, where) == "choice":
        return Choice(parse_items(raw, where, parse_where), _scope(raw, where))
    raise SpaceError(
        "expected groups, layers, {subset: groups}, {first: n}, {last: n} or a choice of them, "
        f"got {dict(raw)!r}",
        where,
    )


def _selection(raw: Any, where: str) -> Any:
    items = raw if isinstance(raw, list | tuple) else [raw]
    if not items or any(isinstance(i, bool) or not isinstance(i, int | str) for i in items):
        raise SpaceError(f"expected names of groups or layers, got {raw!r}", where)
    return "all" if list(items) == ["all"] else tuple(str(item) for item in items)


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SpaceError(f"must be a number of layers, got {value!r}", where)
    return value


def parse_settings(raw: Any, where: str, settings: type[BaseModel]) -> Any:
    """The sections `train` and `backbone`: a mapping of settings, or a choice between mappings."""
    if not isinstance(raw, Mapping):
        raise SpaceError(f"expected a mapping, got {raw!r}", where)
    if "choice" in raw:
        domain_kind(raw, where)
        items = parse_items(raw, where, lambda item, at: parse_settings(item, at, settings))
        return Choice(items, _scope(raw, where))
    entries = []
    for key, value in raw.items():
        if key not in settings.model_fields:
            raise SpaceError(unknown("setting", key, settings.model_fields), where)
        entries.append((key, parse_node(value, f"{where}.{key}", _field_check(settings, key))))
    return Tree(tuple(entries))


def _field_check(settings: type[BaseModel], key: str) -> Check:
    def check(value: Any, where: str) -> Any:
        try:
            return getattr(settings(**{key: value}), key)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise SpaceError(f"{reason[0].lower()}{reason[1:]}, got {value!r}", where) from None

    return check


def parse_groups(raw: Any, where: str) -> Any:
    """`layers.groups`: a number, `each`, `all`, or named selectors as pairs."""
    if isinstance(raw, Mapping) and raw:
        for name, selector in raw.items():
            _selection(selector, f"{where}.{name}")
        return Tree(tuple((str(name), _tupled(selector)) for name, selector in raw.items()))
    if raw in ("each", "all") or (isinstance(raw, int) and not isinstance(raw, bool) and raw >= 1):
        return raw
    raise SpaceError(f"expected a number, each, all or named layers, got {raw!r}", where)


def parse_tuned(raw: Any, where: str) -> Any:
    """`layers.tuned`: which groups are tuned at all."""
    return (
        Subset(None)
        if isinstance(raw, Mapping) and dict(raw) == {"subset": "groups"}
        else (_selection(raw, where))
    )


def name_check(kind: str, known: Sequence[str]) -> Check:
    """A check that a value is one of `known`."""

    def check(value: Any, where: str) -> Any:
        if value not in known:
            raise SpaceError(unknown(kind, value, known), where)
        return value

    return check


def parse_pattern(raw: Any, where: str) -> Any:
    """`layers.pattern`: a pattern or a choice of them."""
    return once(parse_node(raw, where, name_check("pattern", PATTERNS)), where)
