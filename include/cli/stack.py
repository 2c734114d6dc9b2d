"""Start the servers of the local profile that a command needs, and stop them afterwards."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psycopg

from include.cli.console import tell
from include.composition import services_from
from include.local.airflow import stop_orphan
from include.local.profile import STAND_INS, LocalProfile
from include.local.roles import COURIER, sample_logins
from include.service_container import Services
from include.services import stopping
from include.services.errors import UsageError

DEFAULT_CUSTOMERS = 20_000


def command_services() -> Services:
    """Return the connections, settings and policy pack that the environment variables configure."""
    return services_from(os.environ)


def make_home(services: Services) -> None:
    """Create the home folder of ParcelSeal (``PARCELSEAL_HOME``).

    Raises:
        UsageError: the folder cannot be created.
    """
    try:
        services.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The home folder {services.home} cannot be used: {error.strerror}.",
            "Set PARCELSEAL_HOME to a folder that can be written.",
        ) from None


@contextmanager
def local_stack(
    services: Services,
    *,
    customers: int | None = None,
    read: Collection[str] | None = None,
    always: bool = False,
) -> Iterator[Services]:
    """Run the local servers that a command needs, for the duration of a ``with`` block.

    PostgreSQL is started if at least one connection of `STAND_INS` is not configured, because the
    local profile then replaces it. If `customers` is set, connections to the sample database count
    only if the command reads them. The local mail server is started if `always` is set and the
    connection mail is not configured. The context manager yields `services`.

    Args:
        services: connections and policy pack.
        customers: number of customers in the sample database. The sample database is created if the
            command reads it and it does not exist yet. None if the command does not use the sample
            database.
        read: ids of the connections with which the command reads records; None for the connections
            of all mapped databases. Used only if `customers` is set.
        always: whether to start PostgreSQL even if every connection is configured. This is
            necessary for commands that run Airflow, whose own database is in the local PostgreSQL.

    Raises:
        UsageError: a connection of `read` is malformed, or the home folder cannot be used.
    """
    stand_ins, uses_sample = set(STAND_INS), False
    if customers is not None:
        if read is None:
            read = {mapped.connection for mapped in services.pack.databases.values()}
        # A list, since `any` would stop at the first and miss an unreadable connection.
        samples = [name for name in sample_logins() if name in read and services.is_local(name)]
        uses_sample = bool(samples)
        stand_ins -= {*sample_logins()}
    needed = always or uses_sample or any(_is_local(services, name) for name in stand_ins)
    if not needed:
        yield services
        return
    make_home(services)
    local = LocalProfile(services.home)
    stop_orphan(local)
    try:
        with stopping.before_forced_exit_in_block(local.postgres.end_at_once_if_unused):
            local.prepare(services.clock.now(), tell)
            if customers is not None and uses_sample:
                load_sample(services, customers)
            if always and services.lookup("mail") is None:  # workflows run, and may send messages
                local.mail.start()
            yield services
    finally:
        local.mail.stop_if_unused()
        local.postgres.stop_if_unused()


def _is_local(services: Services, name: str) -> bool:
    """Return whether the local profile replaces a connection because it is not configured.

    A malformed connection is not replaced. Commands that use it report the error. Other commands
    continue: for example, `backup list` runs with a malformed state_db.

    Args:
        services: connections and policy pack.
        name: id of the connection.
    """
    try:
        return services.is_local(name)
    except UsageError:
        return False


def load_sample(services: Services, customers: int) -> None:
    """Create the sample courier database, and write its answer sheet to a file.

    The answer sheet lists the rows that the generator made unusual on purpose. If the sample
    database already exists, only waybills of today are added.

    Args:
        services: connections and policy pack.
        customers: number of customers in a new sample database.
    """
    from include.sample_company import load
    from include.sample_company.current_waybills import add_current_waybills
    from include.sample_company.load import grant

    with psycopg.connect(LocalProfile(services.home).owner_conninfo(COURIER)) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('parcelseal sample'))")
        if connection.execute("SELECT to_regclass('public.customer')").fetchone() != (None,):
            add_current_waybills(connection, services.clock.now())
            grant(connection)
            return
        connection.rollback()
        tell(f"loading the sample courier database ({customers:,} customers)")
        sheet = load(connection, customers=customers, as_of=services.clock.now())
        grant(connection)
        connection.commit()
    path = services.home / "sample" / "answer_sheet.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(sheet.model_dump_json(indent=1))
