"""Starting what a command needs of the local profile, and stopping it afterwards."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psycopg

from include.cli.console import tell
from include.composition import workplace_of
from include.local.airflow import stop_orphan
from include.local.profile import STAND_INS, LocalProfile
from include.local.roles import COURIER, sample_logins
from include.services import stopping
from include.services.errors import UsageError
from include.workplace import Workplace

DEFAULT_CUSTOMERS = 20_000


def workplace() -> Workplace:
    """Return the workplace of this shell's environment."""
    return workplace_of(os.environ)


def make_home(place: Workplace) -> None:
    """Create the home folder; raises UsageError where that cannot be."""
    try:
        place.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The home folder {place.home} cannot be used: {error.strerror}.",
            "Set PARCELSEAL_HOME to a folder that can be written.",
        ) from None


@contextmanager
def local_stack(
    place: Workplace,
    *,
    customers: int | None = None,
    read: Collection[str] | None = None,
    always: bool = False,
) -> Iterator[Workplace]:
    """Run the embedded server during the block, and the local mail server if workflows run.

    Yields the workplace.

    Args:
        place: the workplace.
        customers: load the sample courier database of that size, if there is none yet and it stands
            in for a connection of `read`; None loads nothing.
        read: connections whose records the command reads; None for those of the mapped databases.
        always: start even when every connection is configured (Airflow's own database is local).

    Raises:
        UsageError: a connection of `read` is unreadable, or the home folder cannot be used.
    """
    stand_ins, uses_sample = set(STAND_INS), False
    if customers is not None:
        if read is None:
            read = {mapped.connection for mapped in place.pack.databases.values()}
        # A list, since `any` would stop at the first and miss an unreadable connection.
        samples = [name for name in sample_logins() if name in read and place.is_local(name)]
        uses_sample = bool(samples)
        stand_ins -= {*sample_logins()}
    needed = always or uses_sample or any(_is_local(place, name) for name in stand_ins)
    if not needed:
        yield place
        return
    make_home(place)
    local = LocalProfile(place.home)
    stop_orphan(local)
    try:
        with stopping.last_act(local.postgres.end_at_once_if_unused):
            local.prepare(place.clock.now(), tell)
            if customers is not None and uses_sample:
                load_sample(place, customers)
            if always and place.lookup("mail") is None:  # workflows run, and may send messages
                local.mail.start()
            yield place
    finally:
        local.mail.stop_if_unused()
        local.postgres.stop_if_unused()


def _is_local(place: Workplace, name: str) -> bool:
    """Return whether the local profile stands in for a connection.

    An unreadable connection has no stand-in. Commands that need it report the error; others, such
    as `backup list` without the state database, continue.
    """
    try:
        return place.is_local(name)
    except UsageError:
        return False


def load_sample(place: Workplace, customers: int) -> None:
    """Load the sample courier database once; its answer sheet goes beside it.

    One that was loaded on an earlier day gets waybills of today.
    """
    from include.sample_company import load
    from include.sample_company.carry_on import carry_on
    from include.sample_company.load import grant

    with psycopg.connect(LocalProfile(place.home).owner_conninfo(COURIER)) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('parcelseal sample'))")
        if connection.execute("SELECT to_regclass('public.customer')").fetchone() != (None,):
            carry_on(connection, place.clock.now())
            grant(connection)
            return
        connection.rollback()
        tell(f"loading the sample courier database ({customers:,} customers)")
        sheet = load(connection, customers=customers, as_of=place.clock.now())
        grant(connection)
        connection.commit()
    path = place.home / "sample" / "answer_sheet.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(sheet.model_dump_json(indent=1))
