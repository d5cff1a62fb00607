"""`reward: json_schema` on answers and values whose verdict can be told by reading them."""

import pytest
from alignlab_verifiable import JsonSchema
from alignlab_verifiable.schema import check_schema, fits

from alignlab.data.records import Prompt
from alignlab.reward import score
from alignlab.testing import Check, conforms_reward_source

SECRETLY_NESTED = '{"a": ' * 20_000

PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "additionalProperties": False,
}


def verdict(source: JsonSchema, answer: str) -> float:
    (found,) = score(source, [Prompt.user("what ?")], [answer]).tolist()
    return float(found)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"name": "ana", "age": 3}', 1),
        ('Here it is:\n```json\n{"name": "ana"}\n```\nBye {}', 1),
        ('I say {"name": "ana"} and no more', 1),
        ('{"name": ""}', 0),
        ('{"age": 3}', 0),
        ('{"name": "ana", "age": -1}', 0),
        ('{"name": "ana", "age": 1.5}', 0),
        ('{"name": "ana", "age": 3.0}', 1),
        ('{"name": "ana", "age": true}', 0),
        ('{"name": "ana", "age": NaN}', 0),
        ('{"name": "ana", "age": 1e999}', 0),
        ('{"name": "ana", "age": %s}' % ("9" * 5000), 0),
        ('{"name": "ana", "name": "bo"}', 0),
        ('{"name": "ana", "more": 1}', 0),
        ('{"name": "ana"', 0),
        ("[]", 0),
        ("", 0),
        ("no JSON", 0),
        (SECRETLY_NESTED, 0),
        ("[" * 100_000, 0),
    ],
    ids=lambda x: str(x)[:30],
)
def test_json_schema(answer: str, right: int) -> None:
    assert verdict(JsonSchema(PERSON), answer) == right


def test_the_whole_answer_may_have_to_be_json() -> None:
    assert verdict(JsonSchema(PERSON, amid_text=False), 'it is {"name": "ana"}') == 0
    assert verdict(JsonSchema(PERSON, amid_text=False), ' {"name": "ana"} ') == 1


@pytest.mark.parametrize(
    ("schema", "fitting", "unfitting"),
    [
        (True, [1, None], []),
        (False, [], [1, None]),
        ({"type": ["string", "null"]}, ["", None], [1, False]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"enum": [1, "a", None]}, [1, 1.0, "a", None], [True, "b", 2]),
        ({"const": {"a": [1]}}, [{"a": [1.0]}], [{"a": [True]}, {"a": [1], "b": 1}]),
        ({"const": 0}, [0], [False]),
        ({"items": {"type": "integer"}}, [[], [1, 2], "text"], [[1, "a"]]),
        ({"minItems": 1, "maxItems": 2, "uniqueItems": True}, [[1], [1, True]], [[], [1, 2, 3], [1, 1.0]]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5, "text"], [0, 1]),
        ({"maximum": 1}, [1], [1.1]),
        ({"maxLength": 1}, ["a", 100], ["ab"]),
        ({"pattern": "^a"}, ["ab", 1], ["ba"]),
        ({"additionalProperties": {"type": "integer"}}, [{"a": 1}], [{"a": "b"}]),
        ({"properties": {"a": True}, "additionalProperties": False}, [{"a": 1}, {}, 1], [{"b": 1}]),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, ["a", 3], [2]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1, 2], [0, 3]),
        ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, [1], [0, 2]),
        ({"not": {"type": "null"}}, [1], [None]),
        ({"title": "x", "description": "y", "default": 3}, [1], []),
    ],
    ids=str,
)
def test_each_keyword(schema: object, fitting: list[object], unfitting: list[object]) -> None:
    check_schema(schema)
    assert all(fits(value, schema) for value in fitting)
    assert not any(fits(value, schema) for value in unfitting)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"tipe": "object"}, r"schema\.tipe is not understood; did you mean type\?"),
        ({"$ref": "#"}, r"schema\.\$ref is not understood"),
        ({"properties": {"a": {"minimun": 1}}}, r"schema\.properties\.a\.minimun is not understood"),
        ({"anyOf": [{"type": "text"}]}, r"schema\.anyOf\.0\.type cannot be 'text'"),
        ({"type": []}, r"schema\.type cannot be \[\]"),
        ({"minLength": -1}, r"schema\.minLength cannot be -1"),
        ({"minimum": "1"}, r"schema\.minimum cannot be '1'"),
        ({"required": "name"}, r"schema\.required cannot be 'name'"),
        ({"uniqueItems": 1}, r"schema\.uniqueItems cannot be 1"),
        ({"anyOf": []}, r"schema\.anyOf cannot be \[\]"),
        ({"properties": []}, r"schema\.properties cannot be \[\]"),
        ({"items": 3}, r"schema\.items must be a mapping, true or false, got 3"),
        ({"pattern": "("}, r"schema\.pattern: pattern '\(' cannot be used"),
    ],
)
def test_a_schema_that_is_not_understood_is_refused(schema: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^JsonSchema: {message}"):
        JsonSchema(schema)


@conforms_reward_source(lambda: JsonSchema(PERSON))
def test_json_schema_conforms(check: Check) -> None:
    check()
