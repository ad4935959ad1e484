"""The schema instance generator."""

from __future__ import annotations

import contextlib
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.engine.simulated_instance import instance_of
from schemas.errors import JobRejected

Schema = dict[str, Any]
Draw = st.DrawFn


@st.composite
def bounded_strings(draw: Draw) -> Schema:
    least = draw(st.integers(0, 30))
    return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 30))}


@st.composite
def bounded_numbers(draw: Draw) -> Schema:
    kind, least = draw(st.sampled_from(["integer", "number"])), draw(st.integers(-1000, 1000))
    if draw(st.booleans()):
        return {"type": kind, "minimum": least, "maximum": least + draw(st.integers(0, 100))}
    return {"type": kind, "exclusiveMinimum": least, "exclusiveMaximum": least + draw(st.integers(2, 100))}


@st.composite
def multiples(draw: Draw) -> Schema:
    return {"type": "integer", "multipleOf": draw(st.integers(1, 50)), "minimum": draw(st.integers(-1000, 1000))}


@st.composite
def choices(draw: Draw) -> Schema:
    if draw(st.booleans()):
        return {"const": draw(st.one_of(st.integers(), st.text(), st.none()))}
    return {"enum": draw(st.lists(st.integers(), min_size=1, max_size=4, unique=True))}


SCALARS = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    bounded_strings(),
    bounded_numbers(),
    multiples(),
    choices(),
)


@st.composite
def objects(draw: Draw, inner: st.SearchStrategy[Schema]) -> Schema:
    properties = draw(st.dictionaries(st.text(max_size=8), inner, max_size=4))
    closed = {"additionalProperties": False}
    return {"type": "object", "properties": properties, "required": list(properties), **closed}


@st.composite
def arrays(draw: Draw, inner: st.SearchStrategy[Schema]) -> Schema:
    least = draw(st.integers(0, 4))
    return {"type": "array", "items": draw(inner), "minItems": least, "maxItems": least + 2}


@st.composite
def alternatives(draw: Draw, inner: st.SearchStrategy[Schema]) -> Schema:
    return {"anyOf": draw(st.lists(inner, min_size=1, max_size=3))}


def _containers(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.one_of(objects(inner), arrays(inner), alternatives(inner))


@given(st.recursive(SCALARS, _containers, max_leaves=12))
def test_an_instance_is_valid_for_its_schema(schema: dict[str, Any]) -> None:
    jsonschema.validate(instance_of(schema), schema)


# The keywords that the generator reads.
KEYWORDS = (
    "type properties required items enum const minItems maxItems minLength maxLength minimum maximum multipleOf anyOf "
    "allOf oneOf $ref additionalProperties format prefixItems uniqueItems"
)


def _values(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYWORDS.split()), inner, max_size=4))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=10)),
    _values,
    max_leaves=15,
)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10**12},
        {"type": "string", "minLength": 10**12},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "minItems": 9, "items": {"$ref": "#/$defs/a"}}}},
    ],
)
def test_a_schema_that_asks_for_gigabytes_is_refused_at_once(schema: object) -> None:
    with pytest.raises(JobRejected):
        instance_of(schema)


@given(JSON)
def test_anything_else_is_an_instance_or_a_rejection(schema: object) -> None:
    with contextlib.suppress(JobRejected):
        instance_of(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/book", "$defs": {"book": {"type": "object", "required": ["a"], "properties": {"a": True}}}},
        {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"required": ["a"]}]},
        {"type": ["string", "null"], "minLength": 3},
        {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "multipleOf": 0.25, "minimum": 0.3},
        {"type": "string", "format": "date-time"},
        {"oneOf": [{"type": "string", "pattern": "x"}, {"type": "integer"}]},
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        True,
        {},
    ],
)
def test_these_schemas_are_understood(schema: Any) -> None:
    jsonschema.validate(instance_of(schema), schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#"},
        {"$ref": "#/$defs/none"},
        {"$ref": "https://example.org/schema"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "string", "minLength": 5, "maxLength": 4},
        {"type": "string", "pattern": "^a$"},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "uniqueItems": True},
        {"enum": []},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        "string",
        None,
    ],
)
def test_these_schemas_are_rejected(schema: object) -> None:
    with pytest.raises(JobRejected, match="response_format") as caught:
        instance_of(schema)

    assert caught.value.param == "response_format"
