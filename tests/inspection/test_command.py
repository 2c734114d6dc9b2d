"""The command ``parcelseal inspection-pack`` with a real evidence store and state database."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from include.cli import app
from include.service_container import LOCAL_VARIABLE
from tests.inspection.support import PackMaker
from tests.support.without_pdf import without_pdf

PERIOD = ("--from", "2026-07-01", "--to", "2026-09-30")


@pytest.fixture
def configured(maker: PackMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackMaker:
    """Let commands use the evidence store and the state database of the test."""
    public = tmp_path / "evidence.pub"
    public.write_bytes(maker.evidence.signer.public_pem)
    address = conninfo_to_dict(maker.evidence.database)
    connections = {
        "EVIDENCE_STORE": {
            "conn_type": "fs",
            "extra": {"path": str(maker.evidence.root), "trusted_keys": [str(public)]},
        },
        "STATE_DB": {
            "conn_type": "postgres",
            "host": address["host"],
            "port": address.get("port"),
            "schema": address["dbname"],
            "login": address["user"],
            "password": address.get("password"),
        },
    }
    for name, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))
    monkeypatch.setenv(LOCAL_VARIABLE, "off")
    monkeypatch.setenv("PARCELSEAL_HOME", str(tmp_path / "home"))
    maker.quarter()
    maker.evidence.conn.commit()
    return maker


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    with without_pdf():
        code = app._run(["inspection-pack", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_command_writes_the_pack_and_prints_one_json_object(
    configured: PackMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    out = configured.folder / "pack.zip"
    code, printed = run(capsys, "--clause", "5.3", "--clause", "4.2", *PERIOD, "--out", str(out))
    assert code == 0
    assert (printed["file"], printed["bundles"], printed["verified"], printed["not_verified"]) == (
        str(out),
        6,
        6,
        [],
    )
    assert len(printed["not_created"]) == 4
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("manifest.json"))["clauses"] == ["5.3", "4.2"]


def test_command_returns_1_and_names_bundles_that_do_not_verify(
    configured: PackMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = next(configured.evidence.root.glob("enforce_retention/2026/08/*"))
    (bundle / "result.json").write_text("{}")
    out = configured.folder / "pack.zip"
    code, printed = run(capsys, "--clause", "5.3", *PERIOD, "--out", str(out))
    assert code == 1
    assert (printed["bundles"], printed["verified"]) == (3, 2)
    assert printed["not_verified"] == [bundle.relative_to(configured.evidence.root).as_posix()]
    assert out.exists()


def test_command_says_that_a_pack_without_bundles_contains_no_evidence(
    configured: PackMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    out = configured.folder / "pack.zip"
    words = ("--clause", "5.3", "--from", "2025-01-01", "--to", "2025-12-31", "--out", str(out))
    with without_pdf():
        assert app._run(["inspection-pack", *words]) == 0
    assert "contains no evidence of the period" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("--clause", "99.9", *PERIOD),
        ("--clause", "5.3", "--from", "2026-07-01", "--to", "yesterday"),
        ("--clause", "5.3", "--from", "2026-09-01", "--to", "2026-07-01"),
        ("--clause", "5.3", "--from", "1969-12-31", "--to", "2026-07-01"),
        PERIOD,
    ],
    ids=["clause", "date", "order", "range", "none"],
)
def test_command_refuses_wrong_clauses_and_periods_with_exit_code_2(
    configured: PackMaker, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    out = configured.folder / "pack.zip"
    code, printed = run(capsys, *words, "--out", str(out))
    assert code == 2
    assert list(printed) == ["error"]
    assert not out.exists()


def test_command_returns_3_and_leaves_no_file_if_the_store_is_away(
    configured: PackMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    configured.evidence.root.rename(configured.evidence.root.with_name("away"))
    code, printed = run(
        capsys, "--clause", "5.3", *PERIOD, "--out", str(configured.folder / "pack.zip")
    )
    assert code == 3
    assert list(printed) == ["error"]
    assert list(configured.folder.iterdir()) == []
