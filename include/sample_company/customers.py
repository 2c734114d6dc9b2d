"""Generate customers with their addresses, privacy notices and consents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from include.sample_company import identities
from include.sample_company.answers import AnswerSheetBuilder
from include.sample_company.chance import Ints, Mask
from include.sample_company.columns import (
    DAY,
    Column,
    Strings,
    Table,
    characters,
    choose,
    chunks,
    digits,
    null_where,
    put,
    rows,
    stamps,
    strings,
    text_rows,
)
from include.sample_company.staff import (
    BRANCHES,
    CUSTOMER_SERVICE,
    INFORMATION_MANAGEMENT,
    core,
    day_of,
)
from include.sample_company.world import World

NOTICES = ((2555, "2.0"), (1460, "3.0"), (730, "4.0"), (200, "5.0"))  # published days ago, version
DELIVERY, MARKETING, PARTNER_SHARING = 3, 2, 1  # consent_id is 4 * customer_id minus this number
_DEFECTS = (
    "invalid_id_check_digit", "invalid_id_birth_date", "invalid_phone", "missing_name",
    "missing_phone", "missing_id_number", "over_collected_religion", "stale_customer",
    "no_reviewer", "reviewer_is_enterer", "consent_missing", "consent_not_covering_purpose",
    "consent_withdrawn", "minor_without_guardian_consent", "unknown_id_division",
)  # fmt: skip
_KINDS = (*_DEFECTS, "duplicate_customer", "minor", "closed", "formatted_phone")
_BAD_PHONES = (b"12", b"1380", b"+86 1", b"1390O")  # prefixes of eight digits
_RELIGIONS = ("佛教".encode(), "基督教".encode(), "伊斯兰教".encode())
_LABELS = ("家".encode(), "公司".encode(), "学校".encode())
_ADDRESS_COLUMNS = (
    "address_id, customer_id, label, division_code, province, city, district, street, "
    "is_default, created_at"
)


def build(world: World, sheet_builder: AnswerSheetBuilder) -> list[Table]:
    """Return the tables of divisions, notices, customers, addresses and consents.

    Args:
        world: settings of the sample database.
        sheet_builder: collects the rows for the answer sheet while the rows are generated.
    """
    return [
        _divisions(world),
        _notices(world),
        Table(
            "customer",
            "customer_id, name, phone, id_number, email, birth_date, religion, status, "
            "record_class, department_id, default_address_id, marketing_subscribed, preferences, "
            "created_at, updated_at, verified_at, closed_at, entered_by, reviewed_by, reviewed_at",
            _customers(world, sheet_builder), world.customers,
        ),
        Table(
            "address", _ADDRESS_COLUMNS,
            _addresses(world, sheet_builder), _estimated_addresses(world),
        ),
        Table(
            "consent",
            "consent_id, customer_id, purpose, notice_version_id, given_at, withdrawn_at, channel, "
            "by_guardian",
            _consents(world, sheet_builder), round(world.customers * 1.3),
        ),
    ]  # fmt: skip


def consents_to_sharing(world: World, ids: Ints) -> Mask:
    """Return for each customer whether the customer has ever consented to sharing with partners."""
    willing = world.chance.below(ids, 1000, "partner sharing") < world.rates.partner_sharing
    plan = world.customer_plan
    never = np.isin(world.variants(ids), [plan.code("consent_missing"), plan.code("closed")])
    return willing & ~never | world.late_returns(ids)


def consent_given(world: World, ids: Ints) -> Ints:
    """Return the time at which each customer gave consents, in seconds since 1970.

    A customer gives all consents at once, five minutes after sign-up.
    """
    return world.customer_created(ids) + 300


def branches_of(world: World, ids: Ints) -> Ints:
    """Return, for each customer, the number of the branch that is responsible for the customer."""
    branches: Ints = np.array(BRANCHES)[world.chance.below(ids, len(BRANCHES), "branch")]
    return branches


def consents_of(world: World, ids: Ints) -> Ints:
    """Return the number of consents of each customer."""
    variants, plan = world.variants(ids), world.customer_plan
    marketing = _subscribed(world, ids) & (variants != plan.code("consent_not_covering_purpose"))
    delivery = variants != plan.code("consent_missing")
    counts: Ints = np.sum([delivery, marketing, consents_to_sharing(world, ids)], axis=0)
    return counts


def _customers(world: World, sheet_builder: AnswerSheetBuilder) -> Iterator[bytes]:
    enterers = _numbers(world, CUSTOMER_SERVICE)
    reviewers = _numbers(world, INFORMATION_MANAGEMENT)
    plan, chance = world.customer_plan, world.chance
    for ids in chunks(1, world.customers):
        variants = world.variants(ids)
        is_kind = {kind: variants == plan.code(kind) for kind in _KINDS}
        for kind in _DEFECTS:
            sheet_builder.add(kind, ids[is_kind[kind]])
        minor = is_kind["minor"] | is_kind["minor_without_guardian_consent"]
        closed = is_kind["closed"]
        sheet_builder.add("minor", ids[minor])
        sheet_builder.add("closed_customer", ids[closed])
        twins = ids[is_kind["duplicate_customer"]]
        partners = plan.partners(twins)
        later, earlier = np.maximum(twins, partners), np.minimum(twins, partners)
        pairs = zip(later.tolist(), earlier.tolist(), strict=True)
        sheet_builder.add_rows("duplicate_customer", sorted(pairs))

        people = identities.people(world, ids)
        id_number, birth = identities.id_numbers(world, ids)
        id_number, no_birth = _spoil_id(ids, id_number, is_kind)
        created = world.customer_created(ids)
        recent = world.now - (chance.unit(ids, "verified") * 300 * DAY).astype(np.int64)
        verified = np.maximum(created, recent)
        stale_share = chance.unit(ids, "stale")
        horizon = world.now - (world.rates.stale_days + 20) * DAY
        verified = np.where(
            is_kind["stale_customer"],
            created + ((horizon - created) * stale_share).astype(np.int64),
            verified,
        )
        closing = np.where(closed, world.closed_at(ids), 0)
        sheet_builder.add("expired_customer", ids[closed & world.past(closing, 3)])
        verified = np.where(closed, np.minimum(verified, closing), verified)
        updated = np.maximum(verified, closing)
        entered = enterers[chance.below(ids, len(enterers), "entered")]
        reviewed = reviewers[chance.below(ids, len(reviewers), "reviewed")]
        reviewed = np.where(is_kind["reviewer_is_enterer"], entered, reviewed)
        no_reviewer = is_kind["no_reviewer"]
        status = np.where(closed, 2, (chance.below(ids, 20, "status") == 0).astype(np.int64))
        name: Column = people.name
        if is_kind["missing_name"].any():
            name = [put(part, is_kind["missing_name"], b"") for part in people.name]
        yield rows(
            len(ids),
            digits(ids, 10),
            name,
            _phone(world, ids, people.phone, is_kind),
            null_where(is_kind["missing_id_number"], id_number),
            _emails(world, ids, people.pinyin),
            null_where(no_birth, birth),
            null_where(
                ~is_kind["over_collected_religion"],
                choose(_RELIGIONS, ids % len(_RELIGIONS)),
            ),
            choose((b"active", b"dormant", b"closed"), status),
            choose((b"personal", b"sensitive"), minor.astype(np.int64)),
            digits(branches_of(world, ids), 2),
            digits(ids * 2 - 1, 10),
            choose((b"f", b"t"), _subscribed(world, ids).astype(np.int64)),
            _preferences(world, ids),
            stamps(created),
            stamps(updated),
            stamps(verified),
            null_where(~closed, stamps(closing)),
            digits(entered, 5),
            null_where(no_reviewer, digits(reviewed, 5)),
            null_where(no_reviewer, stamps(created + 1800)),
        )
        _note_canaries(world, sheet_builder, ids, id_number)


def _note_canaries(
    world: World, sheet_builder: AnswerSheetBuilder, ids: Ints, id_number: Strings
) -> None:
    for canary in world.canaries[np.isin(world.canaries, ids)].tolist():
        number = id_number[canary - ids[0]].decode()
        for kind, value in (
            ("name", identities.canary_name(world, canary)),
            ("phone", identities.canary_phone(world, canary)),
            ("id_number", number),
            ("email", identities.canary_email(world, canary)),
        ):
            sheet_builder.add_canary(canary, kind, value, f"customer.{kind}", canary)
        sheet_builder.add_canary(
            canary, "token", world.token(canary), "customer.preferences", canary
        )
        street = identities.canary_street(world, canary)
        sheet_builder.add_canary(canary, "street", street, "address.street", canary * 2 - 1)


def _spoil_id(ids: Ints, id_number: Strings, is_kind: dict[str, Mask]) -> tuple[Strings, Mask]:
    wrong, no_date = is_kind["invalid_id_check_digit"], is_kind["invalid_id_birth_date"]
    nowhere = is_kind["unknown_id_division"]
    if not (wrong | no_date | nowhere).any():
        return id_number, no_date
    text = characters(id_number)
    for index in np.flatnonzero(wrong):
        valid = identities.ID_CHECKS.index(chr(text[index, 17]).upper())
        text[index, 17] = ord(identities.ID_CHECKS[(valid + 1 + int(ids[index]) % 10) % 11])
    text[no_date, 10:14] = np.frombuffer(b"0230", np.uint8)
    text[no_date, 17] = identities.check_characters(text[no_date, :17])
    # The last two digits become 99 minus their value: unique codes that are not in the pools.
    text[nowhere, 4:6] = 2 * ord("0") + 9 - text[nowhere, 4:6]
    text[nowhere, 17] = identities.check_characters(text[nowhere, :17])
    return strings(text), no_date


def _phone(world: World, ids: Ints, phone: Strings, is_kind: dict[str, Mask]) -> Column:
    bad, formatted = is_kind["invalid_phone"], is_kind["formatted_phone"]
    if bad.any():
        # Too short, too long or with a letter O; each is unique, so that none is a duplicate.
        start = choose(_BAD_PHONES, ids[bad] % len(_BAD_PHONES))
        middle = digits(ids[bad] % 10**8, 8)
        phone = put(phone, bad, np.char.add(start, middle))
    if formatted.any():
        written = [
            f"+86 {p[:3]}-{p[3:7]}-{p[7:]}".encode()
            for p in (number.decode() for number in phone[formatted])
        ]
        phone = put(phone, formatted, np.array(written, "S"))
    return null_where(is_kind["missing_phone"], phone)


def _emails(world: World, ids: Ints, pinyin: Strings) -> Column:
    hosts = (b"@example.com", b"@example.net", b"@example.org")
    bits = world.chance.below(ids, 60, "email")
    local, number, host = pinyin, digits(ids, 10), choose(hosts, bits % 3)
    for canary in world.canaries[np.isin(world.canaries, ids)]:
        is_canary = ids == canary
        address = identities.canary_email(world, canary).encode()
        local, number, host = (
            put(local, is_canary, address),
            put(number, is_canary, b""),
            put(host, is_canary, b""),
        )
        bits[is_canary] = 0
    return null_where(bits >= 45, (local, number, host))


def _preferences(world: World, ids: Ints) -> Column:
    wishes = (
        b'{"leave_at": "door", "call_first": true}',
        b'{"leave_at": "locker", "call_first": false}',
        b'{"leave_at": "reception", "hours": "09:00-18:00"}',
    )
    draw = world.chance.below(ids, 12, "preferences")
    text = choose((*wishes, rb"\N"), np.minimum(draw, len(wishes)))
    for canary in world.canaries[np.isin(world.canaries, ids)]:
        text = put(text, ids == canary, b'{"note": "%s"}' % world.token(canary).encode())
    return text


def _subscribed(world: World, ids: Ints) -> Mask:
    plan = world.customer_plan
    variants = world.variants(ids)
    likes = world.chance.below(ids, 1000, "marketing") < world.rates.marketing
    likes &= ~np.isin(variants, [plan.code("consent_missing"), plan.code("closed")])
    return likes | np.isin(
        variants, [plan.code("consent_not_covering_purpose"), plan.code("consent_withdrawn")]
    )


def _addresses(world: World, sheet_builder: AnswerSheetBuilder) -> Iterator[bytes]:
    plan, pools = world.customer_plan, world.pools
    for ids in chunks(1, world.customers):
        second = ids[identities.has_second_address(world, ids)]
        address = np.sort(np.concatenate((ids * 2 - 1, second * 2)))
        owner = (address + 1) // 2
        default = address % 2 == 1
        variants = world.variants(owner)
        unknown = (variants == plan.code("unknown_division")) & default
        sheet_builder.add("unknown_division", address[unknown])
        sheet_builder.add("expired_address", address[variants == plan.code("closed")])
        columns = identities.places(world, address)
        code = pools.codes[columns.division]
        yield rows(
            len(address),
            digits(address, 10),
            digits(owner, 10),
            choose((*_LABELS, rb"\N"), world.chance.below(address, 4, "label")),
            put(code, unknown, choose((b"999999", b"110199", b"000000"), address[unknown] % 3)),
            pools.provinces[columns.division],
            pools.cities[columns.division],
            pools.districts[columns.division],
            columns.line,
            choose((b"f", b"t"), default.astype(np.int64)),
            stamps(world.customer_created(owner) + 120),
        )


def _estimated_addresses(world: World) -> int:
    return round(world.customers * (1 + world.rates.second_address / 1000))


def _consents(world: World, sheet_builder: AnswerSheetBuilder) -> Iterator[bytes]:
    plan = world.customer_plan
    purposes = (b"delivery", b"marketing", b"partner_sharing")
    published = np.array([world.now - ago * DAY for ago, _ in NOTICES])
    for ids in chunks(1, world.customers):
        variants = world.variants(ids)
        marketing = _subscribed(world, ids) & (
            variants != plan.code("consent_not_covering_purpose")
        )
        consent = np.sort(np.concatenate((
            ids[variants != plan.code("consent_missing")] * 4 - DELIVERY,
            ids[marketing] * 4 - MARKETING,
            ids[consents_to_sharing(world, ids)] * 4 - PARTNER_SHARING,
        )))  # fmt: skip
        owner, purpose = (consent + 3) // 4, (consent + 3) % 4
        variants = world.variants(owner)
        given_at = consent_given(world, owner)
        closed = variants == plan.code("closed")
        revoked = (variants == plan.code("consent_withdrawn")) & (purpose == 1)
        ended = np.where(closed, world.closed_at(owner), given_at + (world.now - given_at) // 2)
        sheet_builder.add("expired_consent", consent[closed & world.past(ended, 3)])
        yield rows(
            len(consent),
            digits(consent, 11),
            digits(owner, 10),
            choose(purposes, purpose),
            digits(np.searchsorted(published, given_at, "right"), 1),
            stamps(given_at),
            null_where(~(closed | revoked), stamps(ended)),
            choose((b"app", b"web", b"counter"), world.chance.below(owner, 3, "channel")),
            choose((b"f", b"t"), (variants == plan.code("minor")).astype(np.int64)),
        )


def _divisions(world: World) -> Table:
    p = world.pools
    block = rows(len(p.codes), p.codes, p.provinces, p.cities, p.districts, p.retired)
    return Table(
        "administrative_division", "code, province, city, district, retired_on",
        iter([block]), len(p.codes),
    )  # fmt: skip


def _notices(world: World) -> Table:
    day = np.datetime64(day_of(world))
    dates = [day - np.timedelta64(ago, "D") for ago, _ in NOTICES]
    records: list[tuple[object, ...]] = [
        (n, version, "zh-CN", f"客户信息保护告知书 {version}",
         "{delivery,marketing,partner_sharing}", published, dates[n] if n < len(NOTICES) else None)
        for n, ((_, version), published) in enumerate(zip(NOTICES, dates, strict=True), 1)
    ]  # fmt: skip
    return Table(
        "notice_version",
        "notice_version_id, version, language, title, purposes, published_on, retired_on",
        text_rows(records), len(records),
    )  # fmt: skip


def _numbers(world: World, department: int) -> Ints:
    employees = core(world, department)
    return np.array([employee.employee_id for employee in employees], np.int64)
