"""Open sessions on a restored copy in which no event trigger of the application fires."""

from __future__ import annotations

from dataclasses import replace

from include.services.database import DatabaseAddress, connected

SINCE_SERVER = 170_000  # knows event_triggers, as libpq counts versions


def without_event_triggers(copy: DatabaseAddress) -> DatabaseAddress:
    """Return the address of a database for sessions in which no event trigger fires.

    Event triggers of the backup would fire at each login and at each later statement of the
    restore: they write rows that the backup does not have, or forbid the session. Only a superuser
    creates event triggers, and only a superuser may switch them off, so the address of another role
    stays as it is. On a server before 17, in a session of a replica those do not fire that are not
    ``ENABLE ALWAYS`` or ``ENABLE REPLICA``; foreign keys are checked as they are created all the
    same, and `suspended` leaves that role where rows are deleted.

    Args:
        copy: the database that is restored or examined.

    Raises:
        UsageError, ServiceError: the database refuses the login, or does not answer.
    """
    with connected(copy) as connection:
        is_superuser = connection.info.parameter_status("is_superuser") == "on"
        if not is_superuser:
            return copy
        has_setting = connection.info.server_version >= SINCE_SERVER
    setting = "event_triggers=off" if has_setting else "session_replication_role=replica"
    options = f"{copy.parameters.get('options', '')} -c {setting}".strip()
    return replace(copy, parameters={**copy.parameters, "options": options})
