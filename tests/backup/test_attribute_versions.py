"""Versions of columns, which patched servers keep and an older pg_dump writes, are left out."""

from __future__ import annotations

import pytest

from include.backup.attribute_versions import blank_attribute_versions, without_attribute_versions

TABLE = 'CREATE TABLE "a;b"."T""x" (\n    "k (1)" integer\n);\n'
START = 'ALTER TABLE ONLY "a;b"."T""x" ALTER COLUMN "k (1)" SET ('


@pytest.mark.parametrize(
    ("options", "rest"),
    [
        ("pg_attver=40118880", ""),
        ("pg_attver=1, n_distinct=5", f"{START}n_distinct=5);\n"),
        ("n_distinct=5, pg_attver=12", f"{START}n_distinct=5);\n"),
        ("n_distinct=5", f"{START}n_distinct=5);\n"),
    ],
)
def test_attribute_versions_are_left_out_and_other_options_kept(options: str, rest: str) -> None:
    definition = f"{TABLE}{START}{options});\n{START}{options});\n"
    assert without_attribute_versions(definition) == TABLE + rest + rest


def test_blank_attribute_versions_keeps_the_length_of_the_head() -> None:
    """The table of contents states the length of each definition."""
    head = f"\x01\xff{TABLE}{START}pg_attver=40118880, n_distinct=5);\nrest".encode("latin-1")
    blanked = blank_attribute_versions(head)
    assert len(blanked) == len(head)
    assert blanked.startswith(b"\x01\xff")
    assert b"pg_attver" not in blanked
    assert b"n_distinct=5);" in blanked
    assert blanked.endswith(b"\nrest")
