"""Databases that resemble real systems, and how a person completes their drafted policy packs.

``NAME.sql`` creates a database. Its lines ``-- personal: TABLE COLUMN ...`` list the personal
columns. ``NAME.yaml`` completes the drafted pack with record classes and expectations. Each record
class and expectation has a query in plain SQL that counts what a workflow should find.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import yaml

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.sql")))
AS_OF = "2026-11-01"
MOMENT = f"timestamptz '{AS_OF} 00:00+08'"  # start of that day in the pack's timezone
_BASIS = "business"
_LIMIT = {"records": 1_000_000, "percent": "100%"}  # so high that plans need no approval


@dataclass(frozen=True)
class Schema:
    """A database of the corpus.

    Attributes:
        name: name of the database and of its data map; its connection is ``NAME_db``.
    """

    name: str

    @cached_property
    def script(self) -> str:
        """Return the SQL that creates the tables and their rows."""
        return (FOLDER / f"{self.name}.sql").read_text(encoding="utf-8")

    @cached_property
    def completion(self) -> dict[str, Any]:
        """Return what a person adds to the drafted pack, with queries for the expected counts."""
        text = (FOLDER / f"{self.name}.yaml").read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        assert isinstance(content, dict)
        return content

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Return the record classes, with the queries that count the expired records."""
        return list(self.completion["retention"])

    @property
    def expectations(self) -> list[dict[str, Any]]:
        """Return the expectations that a person adds to the drafted pack.

        A query for each expectation counts the records that break it.
        """
        return list(self.completion["quality"])

    def create(
        self, admin: psycopg.Connection[Any], owner: str, conninfo: str, database: str = ""
    ) -> None:
        """Create the database and its rows.

        Args:
            admin: connection of a superuser.
            owner: role that owns everything.
            conninfo: connection string of that role for the new database.
            database: name of the database if it differs from the schema's name.
        """
        admin.execute(f"CREATE DATABASE {database or self.name} OWNER {owner}".encode())
        with psycopg.connect(conninfo) as connection:
            connection.execute(self.script.encode())

    def listed(self, kind: str, columns: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
        """Return the columns that the script lists in its comments, as pairs of table and column.

        Args:
            kind: ``personal``, or ``either`` for columns that may count as personal or not.
            columns: names of all columns by table; names may have spaces.
        """
        listed = set()
        for line in re.findall(rf"^-- {kind}: (.*)$", self.script, re.MULTILINE):
            tables = [table for table in columns if line.startswith((f"{table} ", "* "))]
            assert tables, f"{self.name}: no table for {line}"
            names = line[2:] if line.startswith("* ") else line[len(tables[0]) :]
            for table in tables:
                words = f" {names} "
                for column in sorted(columns[table], key=len, reverse=True):
                    if f" {column} " in words:
                        words = words.replace(f" {column} ", "  ", 1)
                        listed.add((table, column))
                assert line.startswith("* ") or not words.strip(), f"{self.name}: {table}: {words}"
        return listed


SCHEMAS = tuple(map(Schema, NAMES))


def complete(drafts: Path, pack: Path) -> None:
    """Merge the drafted packs into one complete pack.

    Open questions of the drafts are answered, and record classes and expectations are added.

    Args:
        drafts: folder with one drafted pack for each schema.
        pack: folder of the new pack.
    """
    for folder in ("datamap", "quality"):
        (pack / folder).mkdir(parents=True)
    purposes: dict[str, Any] = {}
    retention = []
    for schema in SCHEMAS:
        draft = drafts / schema.name
        (pack / "quality" / f"{schema.name}.yaml").write_text(
            _yaml(_completed_quality(schema, draft)), encoding="utf-8"
        )
        (pack / "datamap" / f"{schema.name}.yaml").write_text(
            _yaml(_completed_map(schema, draft)), encoding="utf-8"
        )
        (purpose,) = yaml.safe_load((draft / "purposes.yaml").read_text(encoding="utf-8"))
        if not purposes:
            purposes = purpose
        purposes["fields"] |= purpose["fields"]
        retention += [_rule(schema, rule) for rule in schema.classes]
    (pack / "purposes.yaml").write_text(_yaml([purposes]), encoding="utf-8")
    (pack / "retention.yaml").write_text(_yaml(retention), encoding="utf-8")
    (pack / "disposition.yaml").write_text(_yaml({"limit": _LIMIT}), encoding="utf-8")


def _completed_map(schema: Schema, draft: Path) -> Any:
    text = (draft / "datamap" / f"{schema.name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    (dataset,) = content["dataset"]
    dataset["meta"]["parcelseal"] |= {
        "connection": f"{schema.name}_db",
        "site": "head-office",
        "owner": "it",
        "department": "IT",
        "class": "confidential",
        "rto_minutes": 60,
        "rpo_hours": 24,
    }
    return content


def _completed_quality(schema: Schema, draft: Path) -> list[dict[str, Any]]:
    text = (draft / "quality" / f"{schema.name}.yaml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = yaml.safe_load(text) or []
    by_collection = {entry["collection"]: entry for entry in entries}
    for number, expectation in enumerate(schema.expectations):
        name = expectation["collection"]
        if name not in by_collection:
            by_collection[name] = {
                "database": schema.name, "collection": name, "expectations": []
            }  # fmt: skip
        by_collection[name]["expectations"].append(
            {
                "id": f"added_{number}",
                "type": expectation["type"],
                "kwargs": expectation["kwargs"],
                "severity": "warn",
                "clause": "4.1",
                "title": {"en": f"Rule {number}", "zh-CN": f"规则 {number}"},
            }
        )
    return list(by_collection.values())


def _rule(schema: Schema, rule: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in rule.items() if key not in {"expired", "stays", "dropped"}}
    return own | {"database": schema.name, "basis": _BASIS}


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
