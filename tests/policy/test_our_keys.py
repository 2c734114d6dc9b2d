"""The validation of ParcelSeal's keys (``meta.parcelseal``) in data maps."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest

from include.messages import in_english, verbatim
from include.policy.datamap import FaultyCollections, MappedDatabase
from include.registry import load_pack
from include.reports.i18n import Translator
from tests.policy.packs import SHOP, problem_lines, write_pack


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("site: 7", "13: meta.parcelseal.site: should be text, YAML reads it as a number"),
        ("sites: x", "13: meta.parcelseal.sites: this key is unknown"),
        ("connection: ''", "13: meta.parcelseal.connection: String should have at least 1 char"),
        ("rto_minutes: 0", "13: meta.parcelseal.rto_minutes: Input should be greater"),
        ("rpo_hours: '24'", "13: meta.parcelseal.rpo_hours: Input should be a valid integer"),
        ("newest:\n- {collection: seller, field: id}", "14: meta.parcelseal.newest[0].collection"),
        ("newest:\n- {collection: buyer, field: at}", "14: meta.parcelseal.newest[0].field: coll"),
        ("newest:\n- {collection: buyer}", "14: meta.parcelseal.newest[0].field: is required but"),
        ("collections:\n  seller: {}", "14: meta.parcelseal.collections.seller: the database has"),
        ("collections:\n  buyer: {tabel: x}", "14: meta.parcelseal.collections.buyer.tabel: this"),
        (
            "collections:\n  buyer: {title: {en: Buyers}}",
            "14: meta.parcelseal.collections.buyer.title",
        ),
        (
            "collections:\n  buyer:\n    field_titles:\n      at: {en: Time, zh-CN: 时间}",
            "16: meta.parcelseal.collections.buyer.field_titles.at: collection 'buyer' has",
        ),
        ("collections: [buyer]", "13: meta.parcelseal.collections: Input should be an object"),
        (
            "unconfirmed:\n  seller: [id]",
            "14: meta.parcelseal.unconfirmed.seller: the database has",
        ),
        ("unconfirmed:\n  buyer: [at]", "14: meta.parcelseal.unconfirmed.buyer[0]: collection"),
        ("unconfirmed: [phone]", "13: meta.parcelseal.unconfirmed: Input should be an object"),
    ],
)
def test_load_pack_reports_each_fault_of_parcelseal_keys_with_its_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    meta = f"meta:\n  x: 1\n  parcelseal:\n{indent(text, '    ')}\n"
    [line] = problem_lines(write_pack(tmp_path, datamap__x=SHOP + meta))
    assert line.startswith(f"datamap/x.yaml:{expected}")


def test_load_pack_reports_unknown_collections_and_fields_together_with_invalid_parcelseal_keys(
    tmp_path: Path,
) -> None:
    """An invalid key also does not hide that two collections have the same table."""
    text = f"{SHOP}  - {{name: public.buyer, fields: []}}\n" + dedent("""\
        meta:
          parcelseal:
            rto_minutes: four
            newest: [{collection: buyre, field: id}, {collection: buyer, field: at}, {field: id}]
            collections: {seller: {owner: 5}}
        """)
    assert [
        line.partition(": ")[2] for line in problem_lines(write_pack(tmp_path, datamap__a=text))
    ] == [
        "collections[1].name: is the same table as collection 'buyer': public.buyer",
        "meta.parcelseal.rto_minutes: Input should be a valid integer",
        "meta.parcelseal.newest[0].collection: the database has no collection 'buyre'",
        "meta.parcelseal.newest[1].field: collection 'buyer' has no field 'at'",
        "meta.parcelseal.newest[2].collection: is required but missing",
        "meta.parcelseal.collections.seller: the database has no such collection",
        "meta.parcelseal.collections.seller.owner: should be text, YAML reads it as a number: "
        'write it in "quotes"',
    ]


@pytest.mark.parametrize(
    "own_keys", ["schema: 5", "collections: {public.buyer: {tabel: purchaser}}"]
)
def test_load_pack_does_not_report_duplicate_table_if_schema_or_table_key_is_invalid(
    tmp_path: Path, own_keys: str
) -> None:
    text = f"{SHOP}  - {{name: public.buyer, fields: []}}\nmeta: {{parcelseal: {{{own_keys}}}}}\n"
    [line] = problem_lines(write_pack(tmp_path, datamap__a=text))
    assert "same table" not in line


def test_load_pack_returns_titles_of_collections_columns_and_json_keys(tmp_path: Path) -> None:
    """A collection or field without a title has its name as the title."""
    text = (
        SHOP
        + indent(
            "- name: raw\n  fides_meta: {data_type: object}\n  fields: [{name: mail}]\n", " " * 6
        )
        + dedent("""\
        meta:
          parcelseal:
            title: {en: The shop, zh-CN: 商店}
            collections:
              buyer:
                title: {en: Buyers, zh-CN: 买家}
                field_titles: {raw.mail: {en: e-mail address, zh-CN: 电子邮箱}}
        """)
    )
    shop = load_pack(write_pack(tmp_path, datamap__x=text)).database("shop")
    raw = shop.collections["buyer"].fields["raw"]
    chinese = Translator("zh_CN")
    assert chinese.text(shop.collection_title("buyer")) == "买家（商店）"
    assert chinese.text(raw.fields["mail"].title) == "电子邮箱"
    assert in_english(raw.title) == "raw"
    assert in_english(shop.collections["buyer"].field_title("gone")) == "gone"
    titles = {label: chinese.text(title) for label, title in shop.table_titles.items()}
    assert titles == {"shop.public.buyer": "买家（商店）"}
    assert in_english(shop.title_of("gone")) == "gone"


def test_titles_of_faulty_data_map_are_the_names_of_its_collections() -> None:
    shop = MappedDatabase.model_construct(
        name="shop", title=verbatim("shop"), collections=FaultyCollections(["buyer"], Path(), [])
    )
    assert in_english(shop.title_of("buyer")) == "buyer"
    assert shop.table_titles == {}


def test_load_pack_returns_remark_with_fields_whose_data_categories_are_unconfirmed(
    tmp_path: Path,
) -> None:
    """Dots separate keys inside JSON columns. Fields without a personal category are left out."""
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
