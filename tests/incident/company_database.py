"""The databases of the small sample company in `incident_fixtures`, and their scope rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from include.incident.rules import AccessLog, Duty, Records, ScopeRule, ShareLog, Subject
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.policy.mapping import StaffGroup


def _mapped(name: str, tables: Mapping[str, Mapping[str, str]]) -> MappedDatabase:
    collections = {
        table: MappedCollection(
            name=table,
            schema_name="public",
            table=table,
            fields={
                field: MappedField(
                    name=field,
                    categories=(category,) if category else (),
                    primary_key=field in (f"{table}_id", "number"),
                )
                for field, category in fields.items()
            },
        )
        for table, fields in tables.items()
    }
    return MappedDatabase(
        name=name,
        title=verbatim(name.title()),
        connection=f"{name}_db",
        schema_name="public",
        rto=timedelta(hours=4),
        rpo=timedelta(hours=24),
        collections=collections,
    )


CUSTOMER = {
    "customer_id": "user.unique_id",
    "name": "user.name",
    "mail": "user.contact.email",
    "made": "",
}
COURIER = _mapped(
    "courier",
    {
        "staff": {"number": "", "duty": "", "away": ""},
        "customer": CUSTOMER,
        "opened": {"opened_id": "", "number": "", "customer_id": "", "at": ""},
        "given": {"given_id": "", "partner": "", "customer_id": "", "at": ""},
    },
)
ARCHIVE = _mapped("archive", {"customer": CUSTOMER})
_PEOPLE = Subject(collection="customer", key="customer_id", mail="mail")
_RECORDS = (Records(collection="customer", subjects=("r.customer_id",), at="r.made"),)
SCOPES = (
    ScopeRule(
        database="courier",
        subject=_PEOPLE,
        records=_RECORDS,
        access=AccessLog(
            collection="opened",
            subject="a.customer_id",
            account="a.number",
            at="at",
            columns=("opened_id", "number", "customer_id", "at"),
        ),
        shares=ShareLog(
            collection="given",
            subject="g.customer_id",
            partner="g.partner::text",
            at="at",
            columns=("given_id", "partner", "customer_id", "at"),
        ),
    ),
    ScopeRule(database="archive", subject=_PEOPLE, records=_RECORDS),
)


def small_duty(duty: Duty) -> Duty:
    people = StaffGroup(where=f"p.duty = '{duty.id}' AND NOT p.away")
    deputies = (
        StaffGroup(accounts=("D1",)) if duty.id in ("technical", "compliance") else StaffGroup()
    )
    return duty.model_copy(update={"people": people, "deputies": deputies})
