"""The trigger form of `use_information`: a request for customer information, or a confirmation.

The filter builder offers only columns that use.yaml allows. It compiles to bound values, see
`include.disclosure.selection`; nobody enters SQL text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from include.approvals.form import HAS_WORDS, Field, FormSections, read_form
from include.disclosure.content import DeliveryForm, Filter, RequestContent, digest_keys
from include.disclosure.rules import LARGEST_DURATION, USE, FilterKind, UseRules
from include.messages import Message, _
from include.policy import PolicyPack
from include.reports.i18n import Translator
from include.services.errors import UsageError

_COLUMN_HELP = _("Only records that meet every chosen condition are selected.")
_DAY = r"^\d{4}-\d{2}-\d{2}$"


class UseAction(StrEnum):
    """The action that a person chooses in the form.

    Attributes:
        REQUEST: request an extract.
        CONFIRM: confirm that local copies are deleted.
    """

    REQUEST = "request"
    CONFIRM = "confirm"


FORMS: Mapping[DeliveryForm, Message] = {
    DeliveryForm.XLSX: _("Excel file with a password (at most 100,000 records)"),
    DeliveryForm.ZIP: _("ZIP file with a password, for large tables"),
    DeliveryForm.AGE: _("File for a machine, encrypted to its age key"),
    DeliveryForm.LOGIN: _("Database login that reads only these fields and records"),
}


def use_form(pack: PolicyPack) -> FormSections:
    """Return the fields of the trigger form, by section."""
    rules = pack.section(USE)
    collections = dict(_collections(pack, rules))
    fields = dict(_fields(pack, rules))
    return {
        "1. Action / 操作": [
            Field(
                "action",
                _("Action"),
                "choice",
                _("The requester confirms when all local copies are deleted."),
                options={
                    str(UseAction.REQUEST): _("Request customer information"),
                    str(UseAction.CONFIRM): _("Confirm that local copies are deleted"),
                },
                value=str(UseAction.REQUEST),
                required=True,
            ),
            Field(
                "request",
                _("Request number"),
                "number",
                _(
                    "Required for a confirmation. For a request: the number of a request that you "
                    "prepared with the command; the fields below are then ignored."
                ),
                schema={"minimum": 1},
            ),
        ],
        "2. Requested information / 申请的信息": [
            Field(
                "purpose",
                _("Purpose"),
                "choice",
                _("Customer information may be used only for a registered purpose."),
                options={
                    purpose.purpose: purpose.message
                    for purpose in (rules.purposes if rules else ())
                },
            ),
            Field(
                "collection",
                _("Kind of records"),
                "choice",
                _("The fields and columns below have to belong to these records."),
                options=collections,
            ),
            Field(
                "fields",
                _("Fields"),
                "list",
                _("Only fields that the purpose needs can be approved."),
                options=fields,
            ),
            Field(
                "unmasked",
                _("Fields without masking"),
                "list",
                _("These fields need a second approval."),
                options=fields,
            ),
        ],
        "3. Selection of records / 记录范围": [
            *_range_fields("date", _("Date column"), dict(_columns(pack, rules, FilterKind.DATE))),
            *_range_fields(
                "number", _("Number column"), dict(_columns(pack, rules, FilterKind.NUMBER))
            ),
            Field(
                "code_column",
                _("Code column"),
                "choice",
                _COLUMN_HELP,
                options=dict(_columns(pack, rules, FilterKind.CODE)),
            ),
            Field(
                "codes",
                _("Codes"),
                "list",
                _("Accepted codes, one in each line."),
                stored_as_typed=True,
            ),
            Field(
                "key_column",
                _("Key column"),
                "choice",
                _COLUMN_HELP,
                options=dict(_columns(pack, rules, FilterKind.KEY)),
            ),
            Field(
                "keys",
                _("Keys of records"),
                "list",
                _("Keys such as waybill numbers, one in each line. Use the command for more."),
                stored_as_typed=True,
            ),
        ],
        "4. Duration and delivery / 期限与交付": [
            Field(
                "days",
                _("Days"),
                "number",
                _("The access ends this number of days after the approval."),
                schema={"minimum": 1, "maximum": LARGEST_DURATION},
            ),
            Field(
                "case",
                _("Case reference"),
                help=_("Number of the complaint or task. Do not enter customer data."),
                schema=HAS_WORDS,
            ),
            Field(
                "form",
                _("Form of the delivery"),
                "choice",
                _(
                    "The password is sent by mail; the file, or the address of the database, is on "
                    "the compliance pages."
                ),
                options={
                    str(form): title
                    for form, title in FORMS.items()
                    if form is not DeliveryForm.LOGIN or (rules and rules.logins)
                },
                value=str(DeliveryForm.XLSX),
            ),
            Field(
                "recipient",
                _("age key of the machine"),
                help=_("Public key that begins with age1. Only for the form for machines."),
                stored_as_typed=True,
                schema={"pattern": r"^age1[a-z0-9]{50,2000}$"},
            ),
        ],
    }


def _range_fields(kind: str, title: Message, columns: Mapping[str, Message]) -> list[Field]:
    limits: Mapping[str, Any] = {"pattern": _DAY} if kind == "date" else {}
    first = _("First day, such as 2026-12-01.") if kind == "date" else _("Smallest number.")
    last = _("Last day, which is included.") if kind == "date" else _("Largest number.")
    return [
        Field(f"{kind}_column", title, "choice", _COLUMN_HELP, options=columns),
        Field(f"{kind}_from", _("From"), help=first, stored_as_typed=True, schema=limits),
        Field(f"{kind}_to", _("To"), help=last, stored_as_typed=True, schema=limits),
    ]


def _collections(pack: PolicyPack, rules: UseRules | None) -> Iterator[tuple[str, Message]]:
    for usable in rules.collections if rules else ():
        database = pack.databases[usable.database]
        yield f"{usable.database}.{usable.collection}", database.collection_title(usable.collection)


def _fields(pack: PolicyPack, rules: UseRules | None) -> Iterator[tuple[str, Message]]:
    for usable in rules.collections if rules else ():
        database = pack.databases[usable.database]
        if database.is_faulty:
            continue
        collection = database.collections[usable.collection]
        for name, field in collection.fields.items():
            yield (
                f"{usable.database}.{usable.collection}.{name}",
                _("{collection}: {field}", collection=collection.title, field=field.title),
            )


def _columns(
    pack: PolicyPack, rules: UseRules | None, kind: FilterKind
) -> Iterator[tuple[str, Message]]:
    for usable in rules.collections if rules else ():
        database = pack.databases[usable.database]
        if database.is_faulty:
            continue
        collection = database.collections[usable.collection]
        for name, column_kind in usable.filters.items():
            if column_kind is kind:
                yield (
                    f"{usable.database}.{usable.collection}.{name}",
                    _(
                        "{collection}: {field}",
                        collection=collection.title,
                        field=collection.field_title(name),
                    ),
                )


def read_use_form(
    pack: PolicyPack, parameters: Mapping[str, Any], requester: str
) -> tuple[RequestContent, frozenset[str]]:
    """Return the content and the keys of the request that a person entered in the form.

    Args:
        pack: the policy pack.
        parameters: parameters of the run.
        requester: account of the person.

    Raises:
        UsageError: a field is missing or wrong. The message names the field.
    """
    form = [field for fields in use_form(pack).values() for field in fields]
    entries = read_form(form, parameters)
    if entries.problems:
        raise UsageError(
            " ".join(Translator("en").text(problem) for problem in entries.problems),
            "Correct the form, and trigger the workflow again.",
        )
    values = dict(entries.values)
    for name in ("purpose", "collection", "fields", "days", "case"):
        if values.get(name) in (None, "", ()):
            title = next(field.title for field in form if field.name == name)
            raise UsageError(
                f"The field “{Translator('en').text(title)}” is empty.",
                "Fill it in, and trigger the workflow again.",
            )
    database, _dot, collection = str(values["collection"]).partition(".")
    prefix = f"{database}.{collection}."

    def columns(name: str) -> tuple[str, ...]:
        chosen = values.get(name) or ()
        assert isinstance(chosen, tuple)
        return tuple(_own_column(column, prefix) for column in chosen)

    entered_keys = values.get("keys") or ()
    assert isinstance(entered_keys, tuple)
    keys = frozenset(entered_keys)
    filters = list(_filters(values, prefix))
    if not filters:
        raise UsageError(
            "No selection of records was entered.",
            "Choose a column with a day, number, code or key, and enter its values.",
        )
    return make_content(
        {
            "requester": requester,
            "purpose": values["purpose"],
            "database": database,
            "collection": collection,
            "fields": columns("fields"),
            "unmasked": columns("unmasked"),
            "filters": filters,
            "days": values["days"],
            "case": values["case"],
            "form": values.get("form") or str(DeliveryForm.XLSX),
            "recipient": values.get("recipient") or "",
        },
        keys,
    ), keys


def make_content(values: Mapping[str, Any], keys: frozenset[str]) -> RequestContent:
    """Return the content of a request from its values.

    Args:
        values: attributes of `RequestContent`, without those of the keys.
        keys: uploaded keys.

    Raises:
        UsageError: a value is wrong. The message names it.
    """
    try:
        return RequestContent.model_validate(
            {**values, "keys": len(keys), "keys_sha256": digest_keys(keys)}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(_place(values, first["loc"]))
        raise UsageError(f"{where}: {_reason(first['msg'])}.", "Correct the request.") from None


def _place(values: Mapping[str, Any], path: Sequence[str | int]) -> Iterator[str]:
    """Yield the parts of the path of a faulty value; a filter is named by its column."""
    for at, part in enumerate(path):
        if at == 1 and path[0] == "filters" and isinstance(part, int):
            entry = values["filters"][part]
            yield entry["column"] if isinstance(entry, dict) else entry.column
        else:
            yield str(part)


def _reason(message: str) -> str:
    """Return the message of pydantic without its prefix for errors of validators."""
    return message.removeprefix("Value error, ")


def _own_column(name: str, prefix: str) -> str:
    if not name.startswith(prefix):
        raise UsageError(
            f"{name} is not a field of the chosen records.",
            "Choose only fields and columns of the records that you request.",
        )
    return name.removeprefix(prefix)


def _filters(values: Mapping[str, Any], prefix: str) -> Iterator[Filter]:
    for kind in (FilterKind.DATE, FilterKind.NUMBER):
        if column := values.get(f"{kind}_column"):
            yield _filter(
                column=_own_column(column, prefix),
                kind=kind,
                start=values.get(f"{kind}_from") or "",
                end=values.get(f"{kind}_to") or "",
            )
    if column := values.get("code_column"):
        codes = values.get("codes") or ()
        yield _filter(column=_own_column(column, prefix), kind=FilterKind.CODE, values=codes)
    if column := values.get("key_column"):
        yield _filter(column=_own_column(column, prefix), kind=FilterKind.KEY)


def _filter(**values: Any) -> Filter:
    try:
        return Filter.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(
            f"The selection by {values['column']} is wrong: {_reason(first['msg'])}.",
            "Correct the form, and trigger the workflow again.",
        ) from None
