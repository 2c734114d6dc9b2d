"""Which PostgreSQL types can hold a data category, and which values bear it out."""

from __future__ import annotations

from include.schema.patterns import JSON

TEXT = {"text", "varchar", "bpchar", "citext", "name", "hstore", "xml", *JSON}
NUMBERS = {"int2", "int4", "int8", "numeric", "float4", "float8", "money"}
DATES = {"date", "timestamp", "timestamptz"}
PERIODS = {f"{kind}{form}" for kind in ("ts", "tstz", "date") for form in ("range", "multirange")}
NETWORKS = {"inet", "cidr"}
DEVICES = {"macaddr", "macaddr8"}
PLACES = {"point", "path", "geometry", "geography"}
BYTES = {"bytea", "oid"}
BOOLS = {"bool"}
# Which types can hold a category, where not only text can.
HOLDERS: dict[str, set[str]] = {
    "user.demographic.date_of_birth": TEXT | DATES | {"int2", "int4"},
    "user.demographic.age_range": TEXT | NUMBERS,
    "user.demographic.marital_status": TEXT | BOOLS | {"int2", "int4"},
    "user.demographic.gender": TEXT | BOOLS | {"int2", "int4", "char"},
    "user.financial": TEXT | NUMBERS,
    "user.financial.bank_account": TEXT | NUMBERS,
    "user.financial.credit_card": TEXT | NUMBERS,
    "user.location.precise": TEXT | NUMBERS | PLACES,
    "user.content.self_image": TEXT | BYTES,
    "user.biometric": TEXT | BYTES,
    "user.authorization.password": TEXT | BYTES,
    "user.device.ip_address": TEXT | NETWORKS,
    "user.device.device_id": TEXT | DEVICES | {"uuid", "int8"},
    "user.device.cookie_id": TEXT | {"uuid"},
    "user.health_and_medical": TEXT | NUMBERS | BOOLS,
    "user.privacy_preferences": TEXT | DATES | BOOLS,
    "user.account.settings": TEXT | BOOLS,
    "user.demographic": TEXT | {"int2", "int4"},
    "user.demographic.race_ethnicity": TEXT | {"int2", "int4"},
    "user.demographic.religious_belief": TEXT | BOOLS | {"int2", "int4"},
    "user.demographic.political_opinion": TEXT | BOOLS | {"int2", "int4"},
    "user.content.private": TEXT | BYTES,
    "user.name.first": TEXT,
    "user.name.last": TEXT,
    "user.name": TEXT,
}
TEXT_OR_NUMBER = TEXT | {"int4", "int8", "numeric"}
# The patterns whose values bear a category out.
EXPECTED: dict[str, tuple[str, ...]] = {
    "user.contact.phone_number": ("mobile", "phone", "digits"),
    "user.contact.fax_number": ("phone", "digits"),
    "user.contact.email": ("email",),
    "user.demographic.date_of_birth": ("birth_date",),
    "user.financial.credit_card": ("card",),
    "user.device.ip_address": ("ip",),
}
# These lead to a person in a table about anything but things and companies.
REACHES = {
    "user.contact.email", "user.contact.phone_number", "user.device.ip_address",
    "user.financial.bank_account",
}  # fmt: skip
