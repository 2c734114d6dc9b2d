"""The published schema of result.json is the one that the code writes."""

from __future__ import annotations

import json

import jsonschema

from include.evidence.model import result_schema
from tests.evidence.support import ROOT

WRITE_IT = (
    ".venv/bin/python -c 'from include.evidence.model import result_schema; "
    "print(result_schema(), end=str())' > docs/result.schema.json"
)


def test_the_published_schema_is_in_step_with_the_code() -> None:
    """Whoever changes the model sees how to publish it."""
    assert (ROOT / "docs/result.schema.json").read_text() == result_schema(), WRITE_IT


def test_the_schema_is_a_json_schema() -> None:
    """By its own meta-schema."""
    jsonschema.Draft202012Validator.check_schema(json.loads(result_schema()))
