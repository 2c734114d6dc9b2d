"""Build the delivery configuration from a policy pack and connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Engine

from include.notify.asking import Confirm, LookUp
from include.notify.channels import MailChannel, RobotChannel
from include.notify.delivery import Office
from include.notify.letters import Writer
from include.policy import PolicyPack
from include.services.clock import Clock
from include.services.connections import ConnectionSpec
from include.services.mail import MailServer
from include.services.robot import Robot
from include.workdays.calendar import Workdays

MAIL = "mail"  # id of the connection


def office_of(
    pack: PolicyPack,
    state: Engine,
    clock: Clock,
    connection: Callable[[str], ConnectionSpec],
    confirm: Mapping[str, Confirm] | None = None,
    addresses: Mapping[str, LookUp] | None = None,
) -> Office:
    """Return the delivery configuration; connections are opened when something is sent.

    Args:
        pack: the policy.
        state: the state database.
        clock: the time.
        connection: finds a connection; raises UsageError where there is none.
        confirm: by kind of notice, who says which are still wanted.
        addresses: by kind of notice, who says where letters go whose address is looked up.
    """
    writer = Writer(pack.notices.languages, pack.calendar.timezone)
    return Office(
        state=state,
        channels={
            "mail": MailChannel(lambda: MailServer.from_connection(connection(MAIL)), writer),
            "robot": RobotChannel(
                lambda conn_id: Robot.from_connection(connection(conn_id), clock), writer
            ),
        },
        rules=pack.notices,
        workdays=Workdays(pack.calendar),
        quiet=pack.calendar.quiet,
        zone=pack.calendar.zone,
        clock=clock,
        confirm=confirm or {},
        addresses=addresses or {},
    )
