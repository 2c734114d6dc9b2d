"""Which PostgreSQL programs are used: those from PyPI, or a full client that was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.services.errors import UsageError
from include.services.programs import CLIENT_VARIABLE, program, program_folder


def test_a_named_client_is_used_for_clients_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The set from PyPI has no TLS; the embedded server goes on with its own programs."""
    named = tmp_path / "pg_dump"
    named.touch(mode=0o755)
    monkeypatch.delenv(CLIENT_VARIABLE, raising=False)
    assert Path(program("pg_dump")).parent == program_folder()
    monkeypatch.setenv(CLIENT_VARIABLE, str(tmp_path))
    assert program("pg_dump") == str(named)
    assert Path(program("initdb")).parent == program_folder()


def test_a_client_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rather than another version in silence."""
    monkeypatch.setenv(CLIENT_VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match="psql"):
        program("psql")


def test_missing_embedded_server_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch):
    """The production image has no embedded server; whoever needs one learns what to install."""
    monkeypatch.delenv(CLIENT_VARIABLE, raising=False)
    monkeypatch.setattr("include.services.programs.find_spec", lambda name: None)
    with pytest.raises(UsageError) as refused:
        program("pg_dump")
    assert CLIENT_VARIABLE in refused.value.action
    assert "requirements-local.txt" in refused.value.action
