"""A subset of JSON Schema (draft 2020-12): enough to say what an answer must hold, small enough to be read.

`jsonschema` is not a dependency of alignlab. Understood are the keywords of `KEYWORDS`; annotations are passed over;
any other keyword is refused where the schema is given, as to ignore it would be to accept what it forbids.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from alignlab.errors import suggestion
from alignlab_verifiable.pattern import check_pattern, matches

ANNOTATIONS: Final = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
)
TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "number": lambda v: _is_number(v),
    "integer": lambda v: _is_number(v) and v == math.floor(v),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _distinct(items: Sequence[Any]) -> bool:
    return not any(same(a, b) for a, b in itertools.combinations(items, 2))


def _fits_number(check: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, limit: not _is_number(value) or check(value, limit)


def _fits_size(kind: type[Any], check: Callable[[int, int], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, limit: not isinstance(value, kind) or check(len(value), limit)


def _at_most(size: float, limit: float) -> bool:
    return size <= limit


def _at_least(size: float, limit: float) -> bool:
    return size >= limit


def _fits_properties(value: Any, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    return all(fits(item, known.get(name, rest)) for name, item in value.items())


KEYWORDS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "type": lambda v, names: any(TYPES[name](v) for name in _names(names)),
    "enum": lambda v, values: any(same(v, known) for known in values),
    "const": same,
    "required": lambda v, names: not isinstance(v, dict) or all(name in v for name in names),
    "items": lambda v, schema: not isinstance(v, list) or all(fits(item, schema) for item in v),
    "uniqueItems": lambda v, wanted: not (wanted and isinstance(v, list)) or _distinct(v),
    "minimum": _fits_number(lambda v, least: v >= least),
    "maximum": _fits_number(lambda v, most: v <= most),
    "exclusiveMinimum": _fits_number(lambda v, bound: v > bound),
    "exclusiveMaximum": _fits_number(lambda v, bound: v < bound),
    "minLength": _fits_size(str, _at_least),
    "maxLength": _fits_size(str, _at_most),
    "minItems": _fits_size(list, _at_least),
    "maxItems": _fits_size(list, _at_most),
    "minProperties": _fits_size(dict, _at_least),
    "maxProperties": _fits_size(dict, _at_most),
    "pattern": lambda v, pattern: not isinstance(v, str) or matches(pattern, [v])[0],
    "allOf": lambda v, schemas: all(fits(v, schema) for schema in schemas),
    "anyOf": lambda v, schemas: any(fits(v, schema) for schema in schemas),
    "oneOf": lambda v, schemas: sum(fits(v, schema) for schema in schemas) == 1,
    "not": lambda v, schema: not fits(v, schema),
    "properties": lambda v, _: True,  # with additionalProperties, in `fits`
    "additionalProperties": lambda v, _: True,
}
"""Check of a value by each keyword."""
_NUMBERS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_COUNTS: Final = frozenset(f"{bound}{of}" for bound in ("min", "max") for of in ("Length", "Items", "Properties"))


def fits(value: Any, schema: Any) -> bool:
    """Whether a JSON value fits a schema that `check_schema` has accepted."""
    if isinstance(schema, bool):
        return schema
    checks = ((KEYWORDS[key], argument) for key, argument in schema.items() if key not in ANNOTATIONS)
    return all(check(value, argument) for check, argument in checks) and _fits_properties(value, schema)


def check_schema(schema: Any, path: str = "schema") -> None:
    """Refuse what is not a schema, or holds a keyword that is not understood.

    Raises:
        ValueError: names the place, the rule and the value.
    """
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise ValueError(f"JsonSchema: {path} must be a mapping, true or false, got {schema!r}")
    for key, value in schema.items():
        if key not in KEYWORDS and key not in ANNOTATIONS:
            raise ValueError(
                f"JsonSchema: {path}.{key} is not understood{suggestion(key, list(KEYWORDS))}; there are "
                f"{', '.join(KEYWORDS)}"
            )
        if key in KEYWORDS and not _check_keyword(key, value, f"{path}.{key}"):
            raise ValueError(f"JsonSchema: {path}.{key} cannot be {value!r}; see JSON Schema for its values")


def _check_keyword(key: str, value: Any, path: str) -> bool:
    if key == "type":
        return bool(_names(value)) and all(name in TYPES for name in _names(value))
    if key in ("items", "additionalProperties", "not"):
        check_schema(value, path)
    elif key in ("properties", "allOf", "anyOf", "oneOf"):
        named = isinstance(value, Mapping) if key == "properties" else isinstance(value, (list, tuple)) and bool(value)
        for name, inner in (value.items() if isinstance(value, Mapping) else enumerate(value)) if named else ():
            check_schema(inner, f"{path}.{name}")
        return named
    elif key == "pattern":
        check_pattern(f"JsonSchema: {path}", str(value))
    elif key in ("enum", "required"):
        return isinstance(value, (list, tuple)) and (key == "enum" or all(isinstance(v, str) for v in value))
    elif key in _NUMBERS:
        return _is_number(value)
    elif key in _COUNTS:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    elif key == "uniqueItems":
        return isinstance(value, bool)
    return True


def _names(value: Any) -> Sequence[str]:
    found: Sequence[str] = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else ()
    return found
