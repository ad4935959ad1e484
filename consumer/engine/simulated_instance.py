"""The smallest instance of a JSON schema: what the simulated engine answers under `response_format`. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from schemas.errors import JobRejected

_DEPTH_MAX = 32
# A schema of a few bytes may ask for gigabytes.
_VALUES_MAX = 10_000
_CHARACTERS_MAX = 100_000
_STRING = "water"
_FORMATS = {
    "date": "2024-01-01",
    "date-time": "2024-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "a@example.org",
    "uri": "https://example.org",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "127.0.0.1",
}
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_UNSUPPORTED = ("pattern", "not", "if", "contains", "patternProperties", "dependentRequired", "minProperties")


def instance_of(schema: object) -> Any:
    """
    Raises:
        JobRejected: not a JSON schema, one that nothing satisfies, or a keyword that is not simulated.
    """
    try:
        return _Maker(schema).make(schema, 0)
    except (TypeError, ValueError, OverflowError) as error:
        raise _refused(f"has a keyword with an impossible value ({error})") from error


class _Maker:
    def __init__(self, root: object) -> None:
        self._root = root
        self._made = 0

    def make(self, schema: object, depth: int, ordinal: int = 0) -> Any:
        """The instance number `ordinal`: arrays of unique items need several."""
        self._made += 1
        if self._made > _VALUES_MAX:
            raise _refused(f"asks for more than {_VALUES_MAX} values")
        if depth > _DEPTH_MAX:
            raise _refused(f"is nested, or refers to itself, more than {_DEPTH_MAX} deep")
        if schema is True:
            return _STRING
        if not isinstance(schema, dict):
            raise _refused(f"must be an object, not {schema!r:.40}")
        node = self._resolved(cast("dict[str, Any]", schema), depth)
        for keyword in _UNSUPPORTED:
            if keyword in node:
                raise _refused(f"uses {keyword!r}, which the simulated engine does not know")
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return _chosen(node["enum"], ordinal)
        return self._of_kind(_kind_of(node), node, depth, ordinal)

    def _of_kind(self, kind: str, node: dict[str, Any], depth: int, ordinal: int) -> Any:
        made: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(node, depth),
            "array": lambda: self._array(node, depth),
            "string": lambda: _string(node, ordinal),
            "integer": lambda: _number(node, kind, ordinal),
            "number": lambda: _number(node, kind, ordinal),
            "boolean": lambda: ordinal % 2 == 0,
            "null": lambda: None,
        }
        return made[kind]()

    def _resolved(self, node: dict[str, Any], depth: int) -> dict[str, Any]:
        """`node` with references followed, `allOf` merged and the first possible alternative taken."""
        self._made += 1
        if self._made > _VALUES_MAX:
            raise _refused(f"asks for more than {_VALUES_MAX} values")
        if depth > _DEPTH_MAX:
            raise _refused(f"is nested, or refers to itself, more than {_DEPTH_MAX} deep")
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return self._resolved(_merged(self._target(node["$ref"]), rest), depth + 1)
        if "allOf" in node:
            whole = {key: value for key, value in node.items() if key != "allOf"}
            for part in _list(node["allOf"], "allOf"):
                whole = _merged(whole, self._resolved(_object_of(part), depth + 1))
            return self._resolved(whole, depth + 1)
        for keyword in ("anyOf", "oneOf"):
            if keyword in node:
                rest = {key: value for key, value in node.items() if key != keyword}
                return self._first_possible(_list(node[keyword], keyword), rest, depth)
        return node

    def _first_possible(self, parts: list[Any], rest: dict[str, Any], depth: int) -> dict[str, Any]:
        refusal: JobRejected | None = None
        for part in parts:
            try:
                merged = self._resolved(_merged(rest, _object_of(part)), depth + 1)
                self.make(merged, depth + 1)
            except JobRejected as error:
                refusal = refusal or error
            else:
                return merged
        raise refusal or _refused("has an empty list of alternatives")

    def _target(self, reference: object) -> dict[str, Any]:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _refused(f"refers to {reference!r:.80}; only references within it work")
        node: Any = self._root
        for part in reference.removeprefix("#").strip("/").split("/"):
            if part:
                name = part.replace("~1", "/").replace("~0", "~")
                node = cast("dict[str, Any]", node).get(name) if isinstance(node, dict) else None
        return _object_of(node)

    def _object(self, node: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = _object_of(node.get("properties", {}))
        extra = node.get("additionalProperties", True)
        made: dict[str, Any] = {}
        for name in _list(node.get("required", []), "required"):
            schema = properties.get(name, extra)
            if schema is False:
                raise _refused(f"requires {name!r} and forbids it")
            made[name] = self.make(schema, depth + 1)
        return made

    def _array(self, node: dict[str, Any], depth: int) -> list[Any]:
        least, most = int(node.get("minItems", 0)), node.get("maxItems", math.inf)
        if least > most:
            raise _refused(f"wants at least {least} and at most {most} items")
        leading = _list(node.get("prefixItems", []), "prefixItems")
        items = [
            self.make(leading[place] if place < len(leading) else node.get("items", True), depth + 1, place)
            for place in range(least)
        ]
        if node.get("uniqueItems") and any(item in items[:place] for place, item in enumerate(items)):
            raise _refused("wants more unique items than the simulated engine can think of")
        return items


def _kind_of(node: dict[str, Any]) -> str:
    kind: Any = node.get("type")
    if kind is None:
        hints = {"properties": "object", "required": "object", "items": "array", "minItems": "array"}
        hints |= {"minLength": "string", "maxLength": "string", "minimum": "number", "maximum": "number"}
        return next((hints[key] for key in node if key in hints), "string")
    if isinstance(kind, list) and kind:
        kind = cast("list[Any]", kind)[0]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise _refused(f"has the unknown type {kind!r:.40}")
    return kind


def _string(node: dict[str, Any], ordinal: int) -> str:
    least, most = int(node.get("minLength", 0)), node.get("maxLength", math.inf)
    if least > most:
        raise _refused(f"wants a string of at least {least} and at most {most} characters")
    if least > _CHARACTERS_MAX:
        raise _refused(f"wants a string of {least} characters, more than {_CHARACTERS_MAX}")
    if "format" in node and node["format"] in _FORMATS:
        text = _FORMATS[node["format"]]
        if not least <= len(text) <= most:
            raise _refused(f"bounds the length of a {node['format']}")
        return text
    text = (f"{ordinal} {_STRING}" if ordinal else _STRING).ljust(least, "~")
    return text[: int(most)] if most < len(text) else text


def _number(node: dict[str, Any], kind: str, ordinal: int) -> float:
    """The multiple nearest to zero that lies within the bounds."""
    low, high = float(node.get("minimum", -math.inf)), float(node.get("maximum", math.inf))
    above, below = float(node.get("exclusiveMinimum", -math.inf)), float(node.get("exclusiveMaximum", math.inf))
    grain = float(node.get("multipleOf", 1))
    if grain <= 0:
        raise _refused(f"has multipleOf {grain:g}")
    if kind == "integer" and grain != int(grain):
        raise _refused(f"wants an integer that is a multiple of {grain:g}")
    floor = max(low, above)
    first = 0 if floor < 0 or (floor == 0 and above < 0) else math.ceil(floor / grain)
    if first * grain <= above:
        first += 1
    ceiling = min(high, below)
    if first * grain > ceiling:
        # Only negative ones are left.
        first = math.floor(ceiling / grain)
    if first * grain >= below:
        first -= 1
    value = (first + ordinal) * grain
    if value > high or value >= below:
        value = first * grain
    if kind == "number" and "multipleOf" not in node and not (low <= value <= high and above < value < below):
        # No whole number lies between the bounds.
        value = (floor + ceiling) / 2
    if not (low <= value <= high and above < value < below):
        raise _refused(f"wants a {kind} that does not exist")
    return int(value) if value == int(value) else value


def _chosen(values: object, ordinal: int) -> Any:
    choices = _list(values, "enum")
    if not choices:
        raise _refused("has an empty enum")
    return choices[ordinal % len(choices)]


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both at once, as far as objects go; otherwise `more` wins."""
    whole = {**base, **more}
    if "properties" in base and "properties" in more:
        whole["properties"] = {**_object_of(base["properties"]), **_object_of(more["properties"])}
    if "required" in base and "required" in more:
        both = [*_list(base["required"], "required"), *_list(more["required"], "required")]
        whole["required"] = list(dict.fromkeys(both))
    return whole


def _object_of(value: object) -> dict[str, Any]:
    if value is True:
        return {}
    if not isinstance(value, dict):
        raise _refused(f"must be an object, not {value!r:.40}")
    return cast("dict[str, Any]", value)


def _list(value: object, keyword: str) -> list[Any]:
    if not isinstance(value, list):
        raise _refused(f"has {keyword!r} that is not a list")
    return cast("list[Any]", value)


def _refused(why: str) -> JobRejected:
    return JobRejected(f"response_format: the JSON schema {why}", param="response_format", code="invalid_json_schema")
