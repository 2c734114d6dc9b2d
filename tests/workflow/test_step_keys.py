"""The JSON keys of step results in sealed bundles stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from include.registry import workflows
from include.workflow.step import HumanTask, Step

KEYS = Path(__file__).with_name("step_keys.txt")


def keys_of_schema(
    schema: dict[str, Any], path: str, definitions: dict[str, Any], parents: frozenset[str]
) -> Iterator[str]:
    """Yield the path of each key that a JSON schema declares, such as ``backup.check.sites[].id``.

    Args:
        schema: JSON schema, or a part of it.
        path: path of the value that the schema describes.
        definitions: named schemas (``$defs``).
        parents: names of the schemas that contain this schema, because schemas may be recursive.
    """
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in parents:
            yield from keys_of_schema(definitions[name], path, definitions, parents | {name})
        return
    for key, value in schema.get("properties", {}).items():
        yield f"{path}.{key}"
        yield from keys_of_schema(value, f"{path}.{key}", definitions, parents)
    parts = [(f"{path}[]", item) for item in schema.get("prefixItems", ())]
    parts += [(path, option) for word in ("anyOf", "oneOf") for option in schema.get(word, ())]
    for word, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(word), dict):
            parts.append((path + suffix, schema[word]))
    for part_path, part in parts:
        yield from keys_of_schema(part, part_path, definitions, parents)


def test_json_keys_of_step_results_equal_the_recorded_list_of_keys() -> None:
    """A reader of old and new bundles relies on the keys. Add new keys to the file."""
    keys: set[str] = set()
    for workflow in workflows():
        for step in workflow.steps:
            if not isinstance(step, Step | HumanTask):
                continue
            schema = step.result.model_json_schema(mode="serialization")
            path = f"{workflow.id}.{step.name}"
            keys.update(keys_of_schema(schema, path, schema.get("$defs", {}), frozenset()))
    assert sorted(keys) == KEYS.read_text().splitlines()
