"""The command ``parcelseal config map``, run as a separate process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.service_container import ROOT
from tests.cli.test_errors import call

SHOP = """
CREATE TABLE customer (id int PRIMARY KEY, name text, phone text, loyalty text);
INSERT INTO customer SELECT n, '王小明', '1380000' || lpad(n::text, 4, '0'), 'gold'
FROM generate_series(1, 40) n;
"""


@pytest.fixture
def shop(database: str) -> str:
    with psycopg.connect(database) as connection:
        connection.execute(SHOP)
    return database


def test_config_map_without_out_option_prints_the_data_map_on_stdout(shop: str, tmp_path: Path):
    """Stdout has only the data map. Stderr has the summary and the uncertain guesses."""
    completed = call(tmp_path / "home", "config", "map", "--dsn", shop, "--name", "shop")
    assert completed.returncode == 0, completed.stderr
    (dataset,) = yaml.safe_load(completed.stdout)["dataset"]
    assert dataset["fides_key"] == "shop"
    assert "user.contact.phone_number" in completed.stderr
    assert "1 tables, 4 personal columns, 1 uncertain guesses" in completed.stderr
    assert "public.customer.loyalty" in completed.stderr
    assert "王小明" not in completed.stdout + completed.stderr
    assert not (tmp_path / "home").exists()


def test_config_map_exits_with_2_if_output_folder_already_has_the_files(shop: str, tmp_path: Path):
    """The second call is refused, and the error lists the existing files."""
    words = ("config", "map", "--dsn", shop, "--name", "shop", "--out", str(tmp_path / "pack"))
    assert call(tmp_path / "home", *words).returncode == 0
    files = sorted(path.relative_to(tmp_path / "pack") for path in tmp_path.glob("pack/**/*.yaml"))
    assert [str(path) for path in files] == [
        "datamap/shop.yaml", "purposes.yaml", "quality/shop.yaml"
    ]  # fmt: skip
    again = call(tmp_path / "home", *words)
    assert again.returncode == 2
    assert "purposes.yaml" in again.stderr


def test_last_line_of_config_map_is_the_command_to_check_the_draft(shop: str, tmp_path: Path):
    """A shell can run the printed command unchanged. The command accepts the drafted pack."""
    out = tmp_path / "my [first] pack"
    completed = call(tmp_path / "home", "config", "map", "--dsn", shop, "--out", str(out))
    last = completed.stderr.splitlines()[-1].partition("next: ")[2]
    assert last == f"PARCELSEAL_POLICY='{out}' ./parcelseal config check"
    checked = call(tmp_path / "home", "config", "check", PARCELSEAL_POLICY=str(out))
    assert checked.returncode == 0, checked.stderr
    assert "unconfirmed data categories of id, name, phone, loyalty" in checked.stderr


def test_config_map_with_json_option_lists_each_guessed_data_category(shop: str, tmp_path: Path):
    """Without ``--name``, the data map gets the name of the database."""
    completed = call(tmp_path / "home", "config", "map", "--dsn", shop, "--json")
    result = json.loads(completed.stdout)
    assert (result["tables"], result["refused"], result["files"]) == (1, {}, [])
    assert (result["unread"], result["rows"]) == ({}, {"public.customer": 40})
    assert result["name"].startswith("t_")
    assert result["guesses"][2] == {
        "schema": "public", "table": "customer", "column": "phone", "key": "",
        "category": "user.contact.phone_number", "confidence": "high",
        "reason": "name, and 100% of the values", "subject": "",
    }  # fmt: skip


def test_config_map_without_dsn_reads_customer_db_connection(shop: str, tmp_path: Path):
    """The command reads the configured database and starts no part of the local profile."""
    address = conninfo_to_dict(shop)
    connection = {
        "conn_type": "postgres", "host": address["host"], "login": address["user"],
        "password": address["password"], "schema": address["dbname"],
    }  # fmt: skip
    completed = call(
        tmp_path / "home", "config", "map", "--json",
        AIRFLOW_CONN_CUSTOMER_DB=json.dumps(connection),
    )  # fmt: skip
    assert json.loads(completed.stdout)["name"] == address["dbname"]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["--dsn", "postgresql://u:geheim@127.0.0.1:1/x"], 3, "No connection"),
        (["--dsn", "nonsense geheim"], 2, "cannot be read"),
        (["--dsn", ""], 2, "--dsn has an empty value"),
        (["--dsn= "], 2, "--dsn has an empty value"),
        (["--out", ""], 2, "--out has an empty value"),
        (["--dsn", "host=/tmp dbname=x password=geheim", "--name", "../x"], 2, "--name"),
    ],
)
def test_config_map_error_contains_neither_a_traceback_nor_the_password(
    tmp_path: Path, words: list[str], code: int, part: str
):
    """The cases are a malformed address, an address without a server, and an invalid name."""
    completed = call(tmp_path / "home", "config", "map", *words)
    assert completed.returncode == code
    assert part in completed.stderr
    assert "geheim" not in completed.stderr + completed.stdout
    assert "Traceback" not in completed.stderr


@pytest.fixture
def powerless_dsn(shop: str) -> Iterator[str]:
    """Return a connection string to the shop for a login that may read no table."""
    role = "stranger_of_shop"
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        yield make_conninfo(shop, user=role, password="x")
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_config_map_exits_with_2_if_the_user_can_read_no_table(
    shop: str, powerless_dsn: str, tmp_path: Path
) -> None:
    """The refused command writes no files.

    It succeeds after the printed GRANT statement was executed.
    """
    words = ("config", "map", "--dsn", powerless_dsn, "--out", str(tmp_path / "pack"))
    completed = call(tmp_path / "home", *words)
    assert completed.returncode == 2, completed.stderr
    error, advice = completed.stderr.splitlines()[-2:]
    assert "No table could be read. public.customer: its user has no right to read it" in error
    assert advice.strip().startswith('GRANT pg_read_all_data TO "stranger_of_shop";')
    assert not (tmp_path / "pack").exists()
    with psycopg.connect(shop) as connection:
        connection.execute("GRANT pg_read_all_data TO stranger_of_shop")
    completed = call(tmp_path / "home", *words)
    assert completed.returncode == 0, completed.stderr


def test_config_map_with_one_readable_table_lists_the_unreadable_tables(
    shop: str, powerless_dsn: str, tmp_path: Path
) -> None:
    with psycopg.connect(shop) as connection:
        connection.execute("CREATE TABLE rider (id int, name text)")
        connection.execute("GRANT SELECT ON rider TO stranger_of_shop")
    completed = call(tmp_path / "home", "config", "map", "--dsn", powerless_dsn, "--json")
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout)["refused"] == {"public.customer": "42501"}
    assert "GRANT pg_read_all_data TO" in completed.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_config_map_prints_that_it_was_interrupted(
    shop: str, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "include.cli", "config", "map", "--dsn", shop]
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    with psycopg.connect(shop) as holder, psycopg.connect(shop, autocommit=True) as watcher:
        holder.execute("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE")
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PARCELSEAL_HOME": str(tmp_path / "home")},
        )
        while not watcher.execute(waiting, [holder.info.dbname]).fetchall():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed) == (128 + number, "")
    lines = [line for line in errors.splitlines() if line]
    assert lines[0].startswith(f"· {number.name}: stopping")
    assert lines[1:] == ["interrupted"]
