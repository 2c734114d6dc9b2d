"""Tests that the shipped data map matches the sample database."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from fideslang.default_taxonomy import DEFAULT_TAXONOMY
from fideslang.models import Dataset

from include.policy import SHIPPED
from include.policy.datamap import DatabaseMeta
from tests.sample_company.conftest import Sample

TYPES = {
    "integer": "integer", "bigint": "integer", "smallint": "integer", "numeric": "float",
    "boolean": "boolean", "jsonb": "object", "ARRAY": "string[]",
}  # fmt: skip


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    text = (SHIPPED / "datamap" / "courier.yaml").read_text(encoding="utf-8")
    (dataset,) = yaml.safe_load(text)["dataset"]
    return dict(dataset)


def test_fideslang_accepts_the_data_map(raw: dict[str, Any]) -> None:
    """The data map is a valid Fides manifest."""
    assert Dataset(**raw).fides_key == "courier"


def test_data_map_has_exactly_the_tables_and_columns_of_the_sample(
    raw: dict[str, Any], sample: Sample
) -> None:
    """The columns also have the same order and types."""
    mapped = {
        collection["name"]: [
            (f["name"], f["fides_meta"]["data_type"]) for f in collection["fields"]
        ]
        for collection in raw["collections"]
    }
    live: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in sample.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns JOIN pg_class "
        "ON relname = table_name WHERE table_schema = 'public' AND NOT relispartition "
        "ORDER BY table_name, ordinal_position"
    ):
        live.setdefault(table, []).append((column, TYPES.get(kind, "string")))
    assert mapped == live


def test_keys_and_references_of_the_data_map_match_the_database(
    raw: dict[str, Any], sample: Sample
) -> None:
    """Composite keys are compared column by column."""
    keys, references = set(), set()
    for collection in raw["collections"]:
        for field in collection["fields"]:
            if field["fides_meta"].get("primary_key"):
                keys.add((collection["name"], field["name"]))
            for reference in field["fides_meta"].get("references", ()):
                assert (reference["dataset"], reference["direction"]) == ("courier", "to")
                references.add((collection["name"], field["name"], reference["field"]))
    assert keys == set(sample.rows(
        "SELECT conrelid::regclass::text, attname::text FROM pg_constraint JOIN pg_class c "
        "ON c.oid = conrelid JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey) "
        "WHERE contype = 'p' AND NOT relispartition AND connamespace = 'public'::regnamespace"
    ))  # fmt: skip
    assert references == set(sample.rows(
        "SELECT conrelid::regclass::text, a.attname::text, "
        "confrelid::regclass::text || '.' || b.attname FROM pg_constraint "
        "CROSS JOIN unnest(conkey, confkey) AS k (mine, theirs) "
        "JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = mine "
        "JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = theirs "
        "WHERE contype = 'f' AND conparentid = 0"
    ))  # fmt: skip


def test_data_categories_and_data_subjects_are_in_the_fides_taxonomy(raw: dict[str, Any]) -> None:
    """Each field has at least one data category."""
    categories = {item.fides_key for item in DEFAULT_TAXONOMY.data_category}
    subjects = {item.fides_key for item in DEFAULT_TAXONOMY.data_subject}
    for collection in raw["collections"]:
        assert set(collection.get("data_subjects", ())) <= subjects
        for field in collection["fields"]:
            assert field["data_categories"], field["name"]
            assert set(field["data_categories"]) <= categories


def test_every_collection_has_an_owner_a_department_and_a_data_class(raw: dict[str, Any]) -> None:
    """Clauses 1 and 2 of the policy require them."""
    meta = DatabaseMeta.model_validate(raw["meta"]["parcelseal"])
    assert (meta.connection, meta.schema_name, meta.site) == ("customer_db", "public", "primary")
    assert (meta.rto_minutes, meta.rpo_hours) == (240, 24)
    assert set(meta.collections) == {collection["name"] for collection in raw["collections"]}
    for said in meta.collections.values():
        assert said.owner
        assert said.department
        assert said.data_class in {"internal", "personal", "sensitive"}
