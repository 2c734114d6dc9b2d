"""What a command starts and loads of the local profile."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from include.cli.stack import local_stack
from include.composition import new_workplace
from include.local.profile import COURIER, STAND_INS, LocalProfile
from include.local.roles import sample_logins
from include.services.connections import ConnectionSpec
from include.services.errors import UsageError
from tests.cli.places import SHOP_RETENTION
from tests.cli.test_errors import call
from tests.policy.packs import SHOP, write_pack

FOREIGN = SHOP.replace(
    "fides_key: shop", "fides_key: shop\nmeta: {parcelseal: {connection: shop_db}}"
)
TABLE = "CREATE TABLE buyer (id int PRIMARY KEY, phone text, seen_at timestamptz)"


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that the server's user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-stack-"))
    folder.chmod(0o755)
    yield folder / "home"
    LocalProfile(folder / "home").postgres.stop()
    shutil.rmtree(folder, ignore_errors=True)


def foreign_pack(folder: Path) -> Path:
    return write_pack(folder, datamap__shop=FOREIGN, retention=SHOP_RETENTION)


def test_command_on_a_foreign_database_loads_no_sample(
    home: Path, tmp_path: Path, database: str
) -> None:
    """The local state database needs the server, but no customers."""
    with psycopg.connect(database) as connection:
        connection.execute(TABLE)
    parameters = conninfo_to_dict(database)
    shop = {
        "conn_type": "postgres", "host": parameters["host"], "login": parameters["user"],
        "password": parameters["password"], "schema": parameters["dbname"],
    }  # fmt: skip
    pack = foreign_pack(tmp_path / "pack")
    done = call(
        home, "retention", "plan", "--json",
        PARCELSEAL_POLICY=str(pack), AIRFLOW_CONN_SHOP_DB=json.dumps(shop),
        TMPDIR=os.environ.get("TMPDIR", "/tmp"),  # noqa: S108 - as this process
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [entry["name"] for entry in json.loads(done.stdout)["classes"]] == ["buyer"]
    assert "sample" not in done.stderr
    place = new_workplace(home, pack, lambda _: None)
    with (
        local_stack(place),
        psycopg.connect(LocalProfile(place.home).owner_conninfo(COURIER)) as courier,
    ):
        assert courier.execute("SELECT to_regclass('public.customer')").fetchone() == (None,)


def configured(*conn_ids: str) -> dict[str, ConnectionSpec]:
    return {name: ConnectionSpec(name, "postgres", host="db.example") for name in conn_ids}


def test_command_without_a_local_connection_starts_no_server(home: Path, tmp_path: Path) -> None:
    """No database of the pack uses the connection customer_db, so it needs no stand-in."""
    lookup = configured("shop_db", *STAND_INS[1:]).get
    place = new_workplace(home, foreign_pack(tmp_path / "pack"), lookup)
    with local_stack(place, customers=10):
        assert not home.exists()


def test_command_loads_the_sample_that_stands_in_for_a_connection(
    home: Path, tmp_path: Path
) -> None:
    lookup = configured(*STAND_INS[1:]).get
    place = new_workplace(home, write_pack(tmp_path / "pack"), lookup)
    assert place.pack.database("shop").connection == "customer_db"
    with (
        local_stack(place, customers=10),
        psycopg.connect(LocalProfile(place.home).owner_conninfo(COURIER)) as courier,
    ):
        assert courier.execute("SELECT count(*) FROM customer").fetchone() == (10,)


def unreadable(broken: str, *others: str) -> Callable[[str], ConnectionSpec | None]:
    """Return a lookup of configured connections in which one cannot be read."""

    def lookup(conn_id: str) -> ConnectionSpec | None:
        if conn_id == broken:
            raise UsageError(f"Connection {broken} cannot be read.")
        return configured(*others).get(conn_id)

    return lookup


def test_command_that_does_not_read_a_connection_accepts_an_unreadable_one(
    home: Path, tmp_path: Path
) -> None:
    """`backup list` shows the restore points although state_db is misspelt."""
    others = [name for name in STAND_INS if name != "state_db"]
    place = new_workplace(home, write_pack(tmp_path / "pack"), unreadable("state_db", *others))
    with local_stack(place):
        assert not home.exists()


@pytest.mark.parametrize("broken", ["customer_db", "incident_db"])
def test_command_refuses_an_unreadable_connection_before_it_starts(
    home: Path, tmp_path: Path, broken: str
) -> None:
    """Whichever of the connections to the sample it is."""
    place = new_workplace(home, write_pack(tmp_path / "pack"), unreadable(broken))
    with (
        pytest.raises(UsageError, match=broken),
        local_stack(place, customers=10, read=list(sample_logins())),
    ):
        pass
    assert not home.exists()
