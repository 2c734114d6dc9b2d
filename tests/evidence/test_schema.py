"""The published schema of result.json equals the schema in the code."""

from __future__ import annotations

import json

import jsonschema
from pydantic.json_schema import GenerateJsonSchema

from include.evidence.model import SCHEMA_VERSION, Result
from tests.evidence.support import ROOT

WRITE_IT = (
    ".venv/bin/python -c 'from tests.evidence.test_schema import result_schema; "
    "print(result_schema(), end=str())' > docs/result.schema.json"
)


def result_schema() -> str:
    """Return the JSON Schema of ``result.json``, as published in docs/result.schema.json."""
    schema = Result.model_json_schema(mode="serialization")
    head = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$comment": f"result.json of an evidence bundle, schema version {SCHEMA_VERSION}",
    }
    return json.dumps(head | schema, indent=2, ensure_ascii=False) + "\n"


def test_published_schema_equals_schema_of_code() -> None:
    """If the test fails, its message contains the command that publishes the schema."""
    assert (ROOT / "docs/result.schema.json").read_text() == result_schema(), WRITE_IT


def test_published_schema_is_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(result_schema()))
