"""Documents become trees of nodes; every error names the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel

from autopeft.core.declaration import Declaration
from autopeft.core.errors import AutoPeftError, SpaceError, shown, unknown
from autopeft.core.methods import DECLARATIONS
from autopeft.core.options import REQUIRED, is_finite, is_plain, is_whole
from autopeft.core.validation import validated
from autopeft.space.domain import SCOPES, Choice, Range, Subset, Tree
from autopeft.space.layers import PATTERNS

Check = Callable[[Any, str], Any]

MAX_VALUES = 100_000
"""Of a domain with a grid."""

MAX_DEPTH = 20
"""Of choices in choices."""

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
    items = _items(raw, "choice", where)
    if where.count(".choice[") >= MAX_DEPTH:
        raise SpaceError(f"more than {MAX_DEPTH} choices in each other", where)
    parsed = tuple(parse(item, f"{where}.choice[{i}]") for i, item in enumerate(items))
    seen = set[Any]()
    for item, value in zip(items, parsed, strict=True):
        if (type(value), value) in seen:
            raise SpaceError(f"{shown(item)} stands twice", f"{where}.choice")
        seen.add((type(value), value))
    return parsed


def _items(raw: Mapping[str, Any], kind: str, where: str) -> Sequence[Any]:
    items = raw[kind]
    if not isinstance(items, list | tuple) or not items:
        reason = f"expected a list of at least one item, got {shown(items)}"
        raise SpaceError(reason, f"{where}.{kind}")
    return items


def _subset(raw: Mapping[str, Any], where: str, check: Check) -> Subset:
    if raw["subset"] == "groups":
        raise SpaceError("subset: groups fits `where` and `layers.tuned` only", where)
    items = _items(raw, "subset", where)
    whole = check(_tupled(items), f"{where}.subset")
    if len(whole) != len(items):
        raise SpaceError("an item stands twice", f"{where}.subset")
    return Subset(whole, _scope(raw, where))


def _range(raw: Mapping[str, Any], kind: str, where: str, check: Check) -> Range:
    low, high = _bounds(raw, kind, where)
    integer, log = kind == "int", raw.get("log", False)
    step = raw.get("step", 1 if integer else None)
    if not isinstance(log, bool):
        raise SpaceError(f"must be true or false, got {shown(log)}", f"{where}.log")
    if log and low <= 0:
        raise SpaceError(f"a log range starts above 0, got {low}", f"{where}.{kind}")
    if step is not None and not (_is_number(step, integer) and step > 0):
        raise SpaceError(f"must be a positive number, got {shown(step)}", f"{where}.step")
    if step is not None and high - low > MAX_VALUES * step:
        raise SpaceError(f"more than {MAX_VALUES} values; a larger step makes fewer", where)
    for i, bound in enumerate((low, high)):
        check(bound if integer else float(bound), f"{where}.{kind}[{i}]")
    return Range(low, high, log, step, integer, _scope(raw, where))


def _bounds(raw: Mapping[str, Any], kind: str, where: str) -> tuple[Any, Any]:
    bounds = raw[kind]
    pair = isinstance(bounds, Sequence) and len(bounds) == 2
    if not pair or not all(_is_number(bound, kind == "int") for bound in bounds):
        raise SpaceError(f"expected [low, high], got {shown(bounds)}", f"{where}.{kind}")
    low, high = bounds
    if low > high:
        raise SpaceError(f"the range [{low}, {high}] is empty", f"{where}.{kind}")
    return low, high


def _is_number(value: Any, integer: bool) -> bool:
    return is_whole(value) if integer else is_finite(value)


def _scope(raw: Mapping[str, Any], where: str) -> Any:
    scope = raw.get("per")
    if scope is not None and scope not in SCOPES:
        raise SpaceError(unknown("scope", scope, SCOPES), f"{where}.per")
    return scope


def _tupled(raw: Any) -> Any:
    return tuple(raw) if isinstance(raw, list) else raw


def parse_placement(raw: Any, where: str) -> Any:
    """One entry of `place`: a placement, or a choice between placements, lists and none."""
    if isinstance(raw, Declaration):
        raw = raw.to_dict()
    if not isinstance(raw, Mapping):
        raise SpaceError(f"expected a mapping with a method, got {shown(raw)}", where)
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
    more = [key for key in raw if key not in (*options, "method", "where")]
    if more and not DECLARATIONS[method].takes_more:
        raise SpaceError(unknown(f"option of {method}", more[0], [*options, "where"]), where)
    entries: list[tuple[str, Any]] = [("method", method)]
    for key, option in options.items():
        if key in raw:
            entries.append((key, parse_node(raw[key], f"{where}.{key}", _in_place(option.check))))
        elif option.default is REQUIRED:
            raise SpaceError(f"{method} needs {key}: {option.expects}", where)
    entries += [(key, parse_node(raw[key], f"{where}.{key}", _plain)) for key in more]
    if "where" in raw:
        entries.append(("where", parse_where(raw["where"], f"{where}.where")))
    return Tree(tuple(entries))


def _plain(value: Any, where: str) -> Any:
    if not is_plain(value):
        raise SpaceError(
            f"must be a text, a number, true, false or a list, got {shown(value)}", where
        )
    return value


def _in_place(check: Callable[[Any], Any]) -> Check:
    """A check whose errors name the place."""

    def checked(value: Any, where: str) -> Any:
        try:
            return check(value)
        except AutoPeftError as error:
            raise SpaceError(error.reason, where) from None

    return checked


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
        f"got {shown(dict(raw))}",
        where,
    )


def _selection(raw: Any, where: str) -> Any:
    items = raw if isinstance(raw, list | tuple) else [raw]
    if not items or not all(isinstance(i, str) or (is_whole(i) and is_finite(i)) for i in items):
        raise SpaceError(f"expected names of groups or layers, got {shown(raw)}", where)
    return "all" if list(items) == ["all"] else tuple(str(item) for item in items)


def _count(value: Any, where: str) -> int:
    if not is_whole(value) or value < 0:
        raise SpaceError(f"must be a number of layers, got {shown(value)}", where)
    return value


def parse_settings(raw: Any, where: str, settings: type[BaseModel]) -> Any:
    """The sections `train` and `backbone`: a mapping of settings, or a choice between mappings."""
    if not isinstance(raw, Mapping):
        raise SpaceError(f"expected a mapping, got {shown(raw)}", where)
    if "choice" in raw:
        domain_kind(raw, where)
        items = parse_items(raw, where, lambda item, at: parse_settings(item, at, settings))
        return Choice(items, _scope(raw, where))
    entries = []
    for key, value in raw.items():
        if key not in settings.model_fields:
            raise SpaceError(unknown("setting", key, settings.model_fields), where)
        check = _in_place(partial(_setting, settings, key))
        entries.append((key, parse_node(value, f"{where}.{key}", check)))
    return Tree(tuple(entries))


def _setting(settings: type[BaseModel], key: str, value: Any) -> Any:
    return getattr(validated(settings, {key: value}), key)


def parse_groups(raw: Any, where: str) -> Any:
    """`layers.groups`: a number, `each`, `all`, or named selectors as pairs."""
    if isinstance(raw, Mapping) and raw:
        for name, selector in raw.items():
            _selection(selector, f"{where}.{name}")
        return Tree(tuple((str(name), _tupled(selector)) for name, selector in raw.items()))
    if raw in ("each", "all") or (is_whole(raw) and raw >= 1):
        return raw
    raise SpaceError(f"expected a number, each, all or named layers, got {shown(raw)}", where)


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
