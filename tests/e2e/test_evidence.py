"""Tests that changed evidence is detected, and that openssl is enough to verify it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.local.profile import LocalProfile
from tests.e2e.conftest import Cli
from tests.support.damage import flip
from tests.support.registers import unguarded

pytestmark = pytest.mark.airflow

KEYS = {"verified", "bundles", "first_bad", "reason"}


@pytest.fixture
def bundle(drilled: dict[str, Any]) -> Path:
    """The sealed bundle of the sample's restore drill."""
    return Path(drilled["bundle"])


@contextmanager
def touched(path: Path) -> Iterator[None]:
    """Change one byte in the middle of a file during the block."""
    before = path.read_bytes()
    flip(path, len(before) // 2)
    try:
        yield
    finally:
        path.write_bytes(before)


def key(cli: Cli, bundle: Path) -> str:
    return bundle.relative_to(cli.home / "evidence").as_posix()


def test_verify_accepts_unchanged_evidence(cli: Cli, bundle: Path):
    """The command verifies all evidence, or a single bundle."""
    everything = cli.json("verify", "--all")
    assert set(everything) == KEYS
    assert everything["verified"] is True
    assert everything["bundles"] >= 2
    assert (everything["first_bad"], everything["reason"]) == (None, None)
    assert cli.json("verify", str(bundle))["verified"] is True


@pytest.mark.parametrize("name", ["result.json", "report.en.html", "SHA256SUMS", "SHA256SUMS.sig"])
def test_verify_fails_and_reports_the_bundle_with_a_changed_byte(cli: Cli, bundle: Path, name: str):
    """The command names the bundle and exits with 1."""
    with touched(bundle / name):
        output = cli.json("verify", "--all", code=1)
    assert set(output) == KEYS
    assert output["verified"] is False
    assert output["first_bad"] == key(cli, bundle)
    assert output["reason"]


def test_verify_fails_and_reports_the_bundle_of_a_changed_ledger_row(cli: Cli, bundle: Path):
    """Somebody could change a failed control to a passed one in the evidence ledger."""
    change = "UPDATE evidence_ledger SET outcome = %s WHERE bundle = %s"
    owner = LocalProfile(cli.services.home).owner_conninfo("parcelseal_state")
    with psycopg.connect(owner, autocommit=True) as conn:
        with unguarded(conn, "evidence_ledger"):
            conn.execute(change, ["attention", key(cli, bundle)])
        try:
            output = cli.json("verify", "--all", code=1)
        finally:
            with unguarded(conn, "evidence_ledger"):
                conn.execute(change, ["pass", key(cli, bundle)])
    assert (output["verified"], output["first_bad"]) == (False, key(cli, bundle))


def test_printed_openssl_commands_succeed_for_unchanged_bundle_and_fail_for_changed_bundle(
    cli: Cli, bundle: Path
):
    """The printed commands run in a plain shell and detect a changed byte."""
    output = cli.call("verify", str(bundle)).stdout.splitlines()
    lines = [line.strip() for line in output[output.index("Check it without ParcelSeal:") + 1 :]]
    assert any("openssl" in line for line in lines)
    assert any("sha256sum" in line for line in lines)

    def check() -> int:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            check=False,
            capture_output=True,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
        ).returncode

    assert check() == 0
    for name in ("report.en.html", "SHA256SUMS"):
        with touched(bundle / name):
            assert check() != 0
