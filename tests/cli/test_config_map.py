"""``parcelseal config map`` as a person calls it."""

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

from include.workplace import ROOT
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


def test_without_a_folder_the_map_is_printed(shop: str, tmp_path: Path):
    """Only the map on stdout; the summary and what to doubt on stderr; nothing is written."""
    done = call(tmp_path / "home", "config", "map", "--dsn", shop, "--name", "shop")
    assert done.returncode == 0, done.stderr
    (dataset,) = yaml.safe_load(done.stdout)["dataset"]
    assert dataset["fides_key"] == "shop"
    assert "user.contact.phone_number" in done.stderr
    assert "1 tables, 4 personal columns, 1 guesses to doubt" in done.stderr
    assert "public.customer.loyalty" in done.stderr
    assert "王小明" not in done.stdout + done.stderr
    assert not (tmp_path / "home").exists()


def test_a_folder_gets_the_whole_pack_once(shop: str, tmp_path: Path):
    """The second time it is refused, and says what is there."""
    words = ("config", "map", "--dsn", shop, "--name", "shop", "--out", str(tmp_path / "pack"))
    assert call(tmp_path / "home", *words).returncode == 0
    found = sorted(path.relative_to(tmp_path / "pack") for path in tmp_path.glob("pack/**/*.yaml"))
    assert [str(one) for one in found] == [
        "datamap/shop.yaml", "purposes.yaml", "quality/shop.yaml"
    ]  # fmt: skip
    again = call(tmp_path / "home", *words)
    assert again.returncode == 2
    assert "purposes.yaml" in again.stderr


def test_the_next_command_is_named_last(shop: str, tmp_path: Path):
    """As it can be copied, and it finds the drafted pack in order."""
    out = tmp_path / "my [first] pack"
    done = call(tmp_path / "home", "config", "map", "--dsn", shop, "--out", str(out))
    last = done.stderr.splitlines()[-1].partition("next: ")[2]
    assert last == f"PARCELSEAL_POLICY='{out}' ./parcelseal config check"
    checked = call(tmp_path / "home", "config", "check", PARCELSEAL_POLICY=str(out))
    assert checked.returncode == 0, checked.stderr
    assert "unconfirmed data categories of id, name, phone, loyalty" in checked.stderr


def test_json_names_each_guess(shop: str, tmp_path: Path):
    """One object; the name is the database's where none is given."""
    done = call(tmp_path / "home", "config", "map", "--dsn", shop, "--json")
    said = json.loads(done.stdout)
    assert (said["tables"], said["refused"], said["files"]) == (1, {}, [])
    assert (said["unread"], said["rows"]) == ({}, {"public.customer": 40})
    assert said["name"].startswith("t_")
    assert said["guesses"][2] == {
        "schema": "public", "table": "customer", "column": "phone", "key": "",
        "category": "user.contact.phone_number", "confidence": "high",
        "reason": "name, and 100% of the values", "subject": "",
    }  # fmt: skip


def test_without_an_address_it_is_the_connection(shop: str, tmp_path: Path):
    """The one that Airflow has as customer_db; nothing of the local profile is started for it."""
    given = conninfo_to_dict(shop)
    connection = {
        "conn_type": "postgres", "host": given["host"], "login": given["user"],
        "password": given["password"], "schema": given["dbname"],
    }  # fmt: skip
    done = call(
        tmp_path / "home", "config", "map", "--json",
        AIRFLOW_CONN_CUSTOMER_DB=json.dumps(connection),
    )  # fmt: skip
    assert json.loads(done.stdout)["name"] == given["dbname"]
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
def test_errors_are_one_line_without_the_password(
    tmp_path: Path, words: list[str], code: int, part: str
):
    """Wrong address, no server, a name that cannot be."""
    done = call(tmp_path / "home", "config", "map", *words)
    assert done.returncode == code
    assert part in done.stderr
    assert "geheim" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.fixture
def stranger(shop: str) -> Iterator[str]:
    """The address of the shop for a role that may connect, and read nothing."""
    role = "stranger_of_shop"
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        yield make_conninfo(shop, user=role, password="x")
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_map_of_a_database_without_a_readable_table_is_refused(
    shop: str, stranger: str, tmp_path: Path
) -> None:
    """Nothing is written, so that the same command works after the GRANT."""
    words = ("config", "map", "--dsn", stranger, "--out", str(tmp_path / "pack"))
    done = call(tmp_path / "home", *words)
    assert done.returncode == 2, done.stderr
    error, advice = done.stderr.splitlines()[-2:]
    assert "No table could be read. public.customer: its user has no right to read it" in error
    assert advice.strip().startswith('GRANT pg_read_all_data TO "stranger_of_shop";')
    assert not (tmp_path / "pack").exists()
    with psycopg.connect(shop) as connection:
        connection.execute("GRANT pg_read_all_data TO stranger_of_shop")
    done = call(tmp_path / "home", *words)
    assert done.returncode == 0, done.stderr


def test_map_of_a_database_with_one_readable_table_names_the_others(
    shop: str, stranger: str, tmp_path: Path
) -> None:
    with psycopg.connect(shop) as connection:
        connection.execute("CREATE TABLE rider (id int, name text)")
        connection.execute("GRANT SELECT ON rider TO stranger_of_shop")
    done = call(tmp_path / "home", "config", "map", "--dsn", stranger, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["refused"] == {"public.customer": "42501"}
    assert "GRANT pg_read_all_data TO" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_map_ends_with_one_closing_line(
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
