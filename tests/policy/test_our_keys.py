"""``meta.parcelseal`` of a data map: every fault at once, and no fault that is none."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest

from include.registry import load_pack
from tests.policy.packs import SHOP, said, write_pack


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("site: 7", "13: meta.parcelseal.site: should be text, YAML reads it as a number"),
        ("sites: x", "13: meta.parcelseal.sites: this key is not known here"),
        ("connection: ''", "13: meta.parcelseal.connection: String should have at least 1 char"),
        ("rto_minutes: 0", "13: meta.parcelseal.rto_minutes: Input should be greater"),
        ("rpo_hours: '24'", "13: meta.parcelseal.rpo_hours: Input should be a valid integer"),
        ("newest:\n- {collection: seller, field: id}", "14: meta.parcelseal.newest[0].collection"),
        ("newest:\n- {collection: buyer, field: at}", "14: meta.parcelseal.newest[0].field: coll"),
        ("newest:\n- {collection: buyer}", "14: meta.parcelseal.newest[0].field: is required and"),
        ("collections:\n  seller: {}", "14: meta.parcelseal.collections.seller: the database has"),
        ("collections:\n  buyer: {tabel: x}", "14: meta.parcelseal.collections.buyer.tabel: this"),
        ("collections: [buyer]", "13: meta.parcelseal.collections: Input should be an object"),
        (
            "unconfirmed:\n  seller: [id]",
            "14: meta.parcelseal.unconfirmed.seller: the database has",
        ),
        ("unconfirmed:\n  buyer: [at]", "14: meta.parcelseal.unconfirmed.buyer[0]: collection"),
        ("unconfirmed: [phone]", "13: meta.parcelseal.unconfirmed: Input should be an object"),
    ],
)
def test_each_fault_of_our_keys_has_its_line(tmp_path: Path, text: str, expected: str) -> None:
    """Types are strict, unknown keys are refused, and what is named has to be there."""
    meta = f"meta:\n  x: 1\n  parcelseal:\n{indent(text, '    ')}\n"
    [line] = said(write_pack(tmp_path, datamap__x=SHOP + meta))
    assert line.startswith(f"datamap/x.yaml:{expected}")


def test_a_fault_of_form_in_our_keys_hides_no_name_that_leads_nowhere(tmp_path: Path) -> None:
    """Nor two collections of one table: all of it is said at once."""
    text = f"{SHOP}  - {{name: public.buyer, fields: []}}\n" + dedent("""\
        meta:
          parcelseal:
            rto_minutes: four
            newest: [{collection: buyre, field: id}, {collection: buyer, field: at}, {field: id}]
            collections: {seller: {owner: 5}}
        """)
    assert [one.partition(": ")[2] for one in said(write_pack(tmp_path, datamap__a=text))] == [
        "collections[1].name: is the same table as collection 'buyer': public.buyer",
        "meta.parcelseal.rto_minutes: Input should be a valid integer",
        "meta.parcelseal.newest[0].collection: the database has no collection 'buyre'",
        "meta.parcelseal.newest[1].field: collection 'buyer' has no field 'at'",
        "meta.parcelseal.newest[2].collection: is required and missing",
        "meta.parcelseal.collections.seller: the database has no such collection",
        "meta.parcelseal.collections.seller.owner: should be text, YAML reads it as a number: "
        'write it in "quotes"',
    ]


@pytest.mark.parametrize("ours", ["schema: 5", "collections: {public.buyer: {tabel: purchaser}}"])
def test_nobody_guesses_the_table_where_its_name_is_faulty(tmp_path: Path, ours: str) -> None:
    """What would be the same table with the default is not said to be."""
    text = f"{SHOP}  - {{name: public.buyer, fields: []}}\nmeta: {{parcelseal: {{{ours}}}}}\n"
    [line] = said(write_pack(tmp_path, datamap__a=text))
    assert "same table" not in line


def test_unconfirmed_fields_are_remarks_until_they_are_deleted(tmp_path: Path) -> None:
    """Keys inside JSON columns have dots; a field without a personal category needs nobody."""
    fields = """\
      - name: raw
        data_categories: [user]
        fides_meta: {data_type: object}
        fields: [{name: mail, data_categories: [user.contact.email]}]
    """
    text = (
        SHOP
        + indent(dedent(fields), "      ")
        + dedent("""\
        meta:
          parcelseal:
            unconfirmed: {buyer: [id, phone, raw.mail]}
        """)
    )
    pack = load_pack(write_pack(tmp_path, datamap__x=text))
    buyer = pack.database("shop").collections["buyer"]
    assert buyer.unconfirmed == ("phone", "raw.mail")
    assert buyer.fields["raw"].is_confirmed
    assert [str(remark) for remark in pack.remarks] == [
        "datamap/x.yaml:16: meta.parcelseal.unconfirmed.buyer: unconfirmed data categories of id, "
        "phone, raw.mail"
    ]
    confirmed = text.replace("[id, phone, raw.mail]", "[]")
    assert load_pack(write_pack(tmp_path, datamap__x=confirmed)).remarks == ()
