"""The parts of the local profile that a command starts, and the sample data that it loads."""

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
from include.composition import build_services
from include.local.profile import COURIER, STAND_INS, LocalProfile
from include.local.roles import sample_logins
from include.services.connections import ConnectionSpec
from include.services.errors import UsageError
from tests.cli.command_services import SHOP_RETENTION
from tests.cli.test_errors import call
from tests.policy.packs import SHOP, write_pack

FOREIGN = SHOP.replace(
    "fides_key: shop", "fides_key: shop\nmeta: {parcelseal: {connection: shop_db}}"
)
TABLE = "CREATE TABLE buyer (id int PRIMARY KEY, phone text, seen_at timestamptz)"


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a ParcelSeal home folder that the user of the PostgreSQL server can enter."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-stack-"))
    folder.chmod(0o755)
    yield folder / "home"
    LocalProfile(folder / "home").postgres.stop()
    shutil.rmtree(folder, ignore_errors=True)


def foreign_pack(folder: Path) -> Path:
    return write_pack(folder, datamap__shop=FOREIGN, retention=SHOP_RETENTION)


def test_command_loads_no_sample_customers_if_customer_db_is_configured(
    home: Path, tmp_path: Path, database: str
) -> None:
    """The local state database needs the embedded server, but no sample customers."""
    with psycopg.connect(database) as connection:
        connection.execute(TABLE)
    parameters = conninfo_to_dict(database)
    shop = {
        "conn_type": "postgres", "host": parameters["host"], "login": parameters["user"],
        "password": parameters["password"], "schema": parameters["dbname"],
    }  # fmt: skip
    pack = foreign_pack(tmp_path / "pack")
    completed = call(
        home, "retention", "plan", "--json",
        PARCELSEAL_POLICY=str(pack), AIRFLOW_CONN_SHOP_DB=json.dumps(shop),
        TMPDIR=os.environ.get("TMPDIR", "/tmp"),  # noqa: S108 - as this process
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    assert [entry["name"] for entry in json.loads(completed.stdout)["classes"]] == ["buyer"]
    assert "sample" not in completed.stderr
    services = build_services(home, pack, lambda _: None)
    with (
        local_stack(services),
        psycopg.connect(LocalProfile(services.home).owner_conninfo(COURIER)) as courier,
    ):
        assert courier.execute("SELECT to_regclass('public.customer')").fetchone() == (None,)


def configured(*conn_ids: str) -> dict[str, ConnectionSpec]:
    return {name: ConnectionSpec(name, "postgres", host="db.example") for name in conn_ids}


def test_command_whose_connections_are_all_configured_starts_no_server(
    home: Path, tmp_path: Path
) -> None:
    """No database of the pack uses the connection customer_db, so it need not be replaced."""
    lookup = configured("shop_db", *STAND_INS[1:]).get
    services = build_services(home, foreign_pack(tmp_path / "pack"), lookup)
    with local_stack(services, customers=10):
        assert not home.exists()


def test_command_loads_sample_customers_if_customer_db_is_not_configured(
    home: Path, tmp_path: Path
) -> None:
    lookup = configured(*STAND_INS[1:]).get
    services = build_services(home, write_pack(tmp_path / "pack"), lookup)
    assert services.pack.database("shop").connection == "customer_db"
    with (
        local_stack(services, customers=10),
        psycopg.connect(LocalProfile(services.home).owner_conninfo(COURIER)) as courier,
    ):
        assert courier.execute("SELECT count(*) FROM customer").fetchone() == (10,)


def unreadable(broken: str, *others: str) -> Callable[[str], ConnectionSpec | None]:
    """Return a function that reads connections, and raises UsageError for the connection `broken`.

    Args:
        broken: id of the connection that cannot be read.
        others: ids of the connections that are configured.
    """

    def lookup(conn_id: str) -> ConnectionSpec | None:
        if conn_id == broken:
            raise UsageError(f"Connection {broken} cannot be read.")
        return configured(*others).get(conn_id)

    return lookup


def test_command_raises_no_error_for_malformed_connection_that_it_does_not_need(
    home: Path, tmp_path: Path
) -> None:
    """For example, `backup list` works although the connection state_db is malformed."""
    others = [name for name in STAND_INS if name != "state_db"]
    services = build_services(home, write_pack(tmp_path / "pack"), unreadable("state_db", *others))
    with local_stack(services):
        assert not home.exists()


@pytest.mark.parametrize("broken", ["customer_db", "incident_db"])
def test_command_raises_usage_error_for_malformed_connection_before_it_starts_a_server(
    home: Path, tmp_path: Path, broken: str
) -> None:
    """Every connection whose database the sample company provides is checked."""
    services = build_services(home, write_pack(tmp_path / "pack"), unreadable(broken))
    with (
        pytest.raises(UsageError, match=broken),
        local_stack(services, customers=10, read=list(sample_logins())),
    ):
        pass
    assert not home.exists()
