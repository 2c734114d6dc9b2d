"""Build the delivery configuration from a policy pack and Airflow connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Engine

from include.messages import Message
from include.notify.channels import MailChannel, RobotChannel
from include.notify.delivery import DeliveryConfig
from include.notify.rendering import Writer
from include.notify.workflow_answers import LookUpAddresses, RevealSecrets, StillDue
from include.policy import PolicyPack
from include.services.clock import Clock
from include.services.connections import ConnectionSpec
from include.services.mail import MailServer
from include.services.robot import Robot
from include.workdays.calendar import Workdays

MAIL = "mail"  # id of the connection


def delivery_config_of(
    pack: PolicyPack,
    state: Engine,
    clock: Clock,
    connection: Callable[[str], ConnectionSpec],
    confirm: Mapping[str, StillDue] | None = None,
    addresses: Mapping[str, LookUpAddresses] | None = None,
    titles: Mapping[str, Message] | None = None,
    secrets: Mapping[str, RevealSecrets] | None = None,
) -> DeliveryConfig:
    """Return the delivery configuration. Connections are looked up only when a message is sent.

    Args:
        pack: policy pack.
        state: engine of the state database.
        clock: source of the current time.
        connection: callback that returns an Airflow connection by its id. It raises UsageError if
            the connection does not exist.
        confirm: kind of notification -> callback that returns which notifications are still due.
        addresses: kind of notice -> callback that returns the addresses of its recipients.
        titles: kind of notification -> display name.
        secrets: kind of notification -> callback that returns the secrets of its lines.
    """
    writer = Writer(pack.notices.languages, pack.calendar.timezone)
    return DeliveryConfig(
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
        still_due=confirm or {},
        addresses=addresses or {},
        titles=titles or {},
        secrets=secrets or {},
    )
