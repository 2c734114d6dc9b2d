"""Data maps: fideslang manifests, ParcelSeal's keys, unusual names, and faults with their lines."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.messages import _, in_english, verbatim
from include.policy.datamap import MappedDatabase
from include.registry import load_pack
from include.reports.i18n import Translator
from include.services.errors import UsageError
from tests.policy.packs import SHOP, problem_lines, write_pack

# In the manner of Fides' own demonstration datasets, legacy keys included.
FIDES = """\
dataset:
  - fides_key: fides_style
    organization_fides_key: default_organization
    name: Written for Fides
    description: No word in it was written for another program.
    meta: null
    data_categories: []
    data_qualifier: aggregated.anonymized.unlinked_pseudonymized.pseudonymized.identified
    retention: "30 days after account deletion"
    third_country_transfers: [GBR, CAN]
    collections:
      - name: visit
        fides_meta: {after: [fides_style.customer], skip_processing: false}
        fields:
          - name: email
            data_categories: [user.contact.email]
            fidesops_meta: {identity: email, data_type: string, length: 40}
          - name: customer_id
            fidesops_meta:
              references:
                - {dataset: fides_style, field: customer.id, direction: from}
                - {dataset: elsewhere, field: person.id}
      - name: customer
        data_subjects: [customer]
        fields:
          - {name: name, data_categories: [user.name], data_uses: [essential.service]}
          - {name: id, data_categories: [user.unique_id], fidesops_meta: {primary_key: True}}
          - name: payload
            fides_meta: {data_type: object}
            fields:
              - name: contact
                fields:
                  - {name: phone, data_categories: [user.contact.phone_number]}
          - {name: tags, fides_meta: {data_type: "string[]", return_all_elements: true}}
"""


def database_of(folder: Path, text: str) -> MappedDatabase:
    [database] = load_pack(write_pack(folder, datamap__x=text)).databases.values()
    return database


def test_database_title_has_english_and_chinese_text_if_the_data_map_contains_both(
    tmp_path: Path,
) -> None:
    title = "    meta: {parcelseal: {title: {en: Shop, zh-CN: 商店}}}\n"
    text = FIDES.replace("    meta: null\n", title, 1)
    database = database_of(tmp_path, text)
    texts = [Translator(locale).text(database.title) for locale in ("en", "zh_CN")]
    assert texts == ["Shop", "商店"]


def test_database_title_with_braces_and_control_characters_is_shown_literally_and_escaped(
    tmp_path: Path,
) -> None:
    """A title with braces is text of the company, not a template."""
    hostile = "Shop {b} {x!r} {{c}} {0}\u202e\u0000"
    text = FIDES.replace(
        "    meta: null\n",
        '    meta: {parcelseal: {title: {en: "Shop {b} {x!r} {{c}} {0}\\u202e\\0", zh-CN: 店}}}\n',
        1,
    )
    title = database_of(tmp_path, text).title
    shown = "Shop {b} {x!r} {{c}} {0}\\u202e\\u0000"
    assert Translator("en").text(title) == shown
    assert Translator("en").text(_("Database {name}", name=title)) == f"Database {shown}"
    assert in_english(_("Database {name}", name=title)) == f"Database {hostile}"


def test_fides_manifest_without_parcelseal_keys_gets_default_values(tmp_path: Path) -> None:
    pack = load_pack(write_pack(tmp_path, datamap__x=FIDES))
    database = pack.database("fides_style")
    assert database.title == verbatim("Written for Fides")
    assert (database.connection, database.schema_name, database.site) == (
        "customer_db",
        "public",
        None,
    )
    assert (database.rto, database.rpo) == (timedelta(minutes=240), timedelta(hours=24))
    assert list(database.collections) == ["visit", "customer"]  # as written, not sorted
    customer = database.collections["customer"]
    assert customer.primary_key == ("id",)
    assert list(customer.fields) == ["name", "id", "payload", "tags"]
    assert customer.fields["name"].uses == ("essential.service",)
    assert customer.fields["name"].subjects == ("customer",)
    assert customer.fields["payload"].fields["contact"].fields["phone"].is_personal
    assert not customer.fields["tags"].is_personal
    mapped, unmapped = database.collections["visit"].fields["customer_id"].references
    assert (mapped.database, mapped.collection, mapped.field) == (
        "fides_style",
        "customer",
        "id",
    )
    assert (
        unmapped.database,
        unmapped.collection,
        unmapped.field,
    ) == ("elsewhere", "", "person.id")


def test_load_pack_returns_remarks_about_data_map_keys_that_fideslang_ignores(
    tmp_path: Path,
) -> None:
    text = SHOP.replace("data_categories", "data_catgories")
    remarks = [
        str(remark) for remark in load_pack(write_pack(tmp_path / "a", datamap__x=text)).remarks
    ]
    assert remarks == [
        "datamap/x.yaml:8: collections[0].fields[1].data_catgories: "
        "fideslang does not know this key and ignores it"
    ]
    remarks = [
        str(remark) for remark in load_pack(write_pack(tmp_path / "b", datamap__x=FIDES)).remarks
    ]
    assert [line.split(": ")[1] for line in remarks] == [
        "dataset[0].data_qualifier",
        "dataset[0].retention",
        "dataset[0].third_country_transfers",
        "dataset[0].collections[0].fields[1].fidesops_meta.references[1].dataset",
    ]


def test_parcelseal_keys_in_data_map_override_the_defaults(tmp_path: Path) -> None:
    text = SHOP + dedent("""\
        meta:
          other_tool: {anything: [goes]}
          parcelseal:
            connection: shop_db
            schema: sales
            site: kunming-1
            owner: zhang
            department: IT
            class: internal
            rto_minutes: 30
            rpo_hours: 1
            newest: [{collection: buyer, field: seen_at}]
            collections:
              buyer: {schema: crm, table: 客户, class: confidential, department: CS, owner: li}
        """)
    database = database_of(tmp_path, text)
    assert (database.connection, database.schema_name) == ("shop_db", "sales")
    assert (database.site, database.owner, database.department) == ("kunming-1", "zhang", "IT")
    assert (database.rto, database.rpo) == (timedelta(minutes=30), timedelta(hours=1))
    assert [(reference.collection, reference.field) for reference in database.newest] == [
        ("buyer", "seen_at")
    ]
    buyer = database.collections["buyer"]
    assert (buyer.schema_name, buyer.table) == ("crm", "客户")
    assert (buyer.data_class, buyer.department, buyer.owner) == ("confidential", "CS", "li")


def test_collection_inherits_class_owner_department_and_schema_of_its_database(
    tmp_path: Path,
) -> None:
    text = SHOP.replace("collections:", "data_categories: [user]\ncollections:") + dedent("""\
        meta: {parcelseal: {class: internal, owner: zhang, department: IT, schema: Sales}}
        """)
    buyer = database_of(tmp_path, text).collections["buyer"]
    assert (buyer.data_class, buyer.owner, buyer.department) == ("internal", "zhang", "IT")
    assert (buyer.schema_name, buyer.table) == ("Sales", "buyer")
    assert buyer.fields["phone"].categories == ("user", "user.contact.phone_number")
    assert buyer.fields["id"].is_personal


def test_field_without_own_data_subjects_has_the_data_subjects_of_its_collection(
    tmp_path: Path,
) -> None:
    """In a table about customers, a column about staff must not count as data of customers."""
    text = SHOP.replace("name: buyer\n", "name: buyer\n    data_subjects: [customer]\n")
    text = text.replace("name: seen_at\n", "name: seen_at\n        data_subjects: [employee]\n")
    fields = database_of(tmp_path, text).collections["buyer"].fields
    assert fields["phone"].subjects == ("customer",)
    assert fields["seen_at"].subjects == ("employee",)


def test_database_without_recovery_targets_uses_targets_of_backup_yaml(tmp_path: Path) -> None:
    folder = write_pack(tmp_path, backup="defaults: {rto_minutes: 15, rpo_hours: 2}\n")
    database = load_pack(folder).database("shop")
    assert (database.rto, database.rpo) == (timedelta(minutes=15), timedelta(hours=2))


@pytest.mark.parametrize(
    ("name", "exceptions", "expected"),
    [
        ("orders", None, ("public", "orders")),
        ("Orders 2024", None, ("public", "Orders 2024")),
        ("运单", None, ("public", "运单")),
        ("sales.orders", None, ("sales", "orders")),
        ("销售.订单", None, ("销售", "订单")),
        ("a.b.c", None, ("a", "b.c")),
        (".orders", None, ("public", ".orders")),
        ("orders.", None, ("public", "orders.")),
        ('say "hi"; --', None, ("public", 'say "hi"; --')),
        (" lead", None, ("public", " lead")),
        ("sales.orders", {"schema": "public"}, ("public", "sales.orders")),
        ("sales.orders", {"table": "x.y"}, ("public", "x.y")),
        ("orders", {"schema": "s", "table": "T"}, ("s", "T")),
        ("sales.orders", {"class": "secret"}, ("sales", "orders")),
    ],
)
def test_collection_name_is_split_at_dot_into_schema_and_table_unless_data_map_states_them(
    tmp_path: Path, name: str, exceptions: dict[str, str] | None, expected: tuple[str, str]
) -> None:
    """A dot separates schema and table, unless the data map names the schema or the table."""
    meta = {"parcelseal": {"collections": {name: exceptions} if exceptions else {}}}
    dataset = {"fides_key": "x", "meta": meta, "collections": [{"name": name, "fields": []}]}
    database = database_of(tmp_path, yaml.safe_dump(dataset, allow_unicode=True))
    assert (database.collections[name].schema_name, database.collections[name].table) == expected


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\x7f\x85\x00"), min_size=1, max_size=8
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(tables=st.dictionaries(_NAMES, st.lists(_NAMES, min_size=1, unique=True), min_size=1))
def test_load_pack_returns_table_and_column_names_with_any_characters_unchanged(
    tmp_path: Path, tables: dict[str, list[str]]
) -> None:
    """A reference with several dots can be split in several ways.

    The result must always be a field that exists.
    """
    targets = [(table, column) for table, columns in tables.items() for column in columns]
    references = [{"dataset": "x", "field": f"{table}.{column}"} for table, column in targets]
    (first, *_rest) = targets
    collections = [
        {
            "name": table,
            "fields": [
                {"name": column, "fides_meta": {"references": references}}
                if (table, column) == first
                else {"name": column}
                for column in columns
            ],
        }
        for table, columns in tables.items()
    ]
    # explicit tables: `a.b` would be table b of schema a, which may repeat another table
    own_keys = {"collections": {table: {"table": table} for table in tables}}
    dataset = {"fides_key": "x", "meta": {"parcelseal": own_keys}, "collections": collections}
    database = database_of(tmp_path, yaml.safe_dump(dataset, allow_unicode=True, default_style='"'))
    assert {n: list(c.fields) for n, c in database.collections.items()} == tables
    assert [collection.table for collection in database.collections.values()] == list(tables)
    references_read = database.collections[first[0]].fields[first[1]].references
    assert [f"{reference.collection}.{reference.field}" for reference in references_read] == [
        r["field"] for r in references
    ]
    assert {(reference.collection, reference.field) for reference in references_read} <= set(
        targets
    )


def test_field_may_have_data_category_that_another_data_map_file_defines(tmp_path: Path) -> None:
    category = """\
        data_category:
          - fides_key: user.contact.waybill
            name: Waybill
            parent_key: user.contact
        system: []
        """
    text = SHOP.replace("user.contact.phone_number", "user.contact.waybill")
    pack = load_pack(write_pack(tmp_path, datamap__z_taxonomy=category, datamap__a_shop=text))
    field = pack.database("shop").collections["buyer"].fields["phone"]
    assert field.categories == ("user.contact.waybill",)
    assert [remark.message for remark in pack.remarks] == ["is not used by ParcelSeal"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("phone_number", "phone", "8: collections[0].fields[1].data_categories[0]: the taxonomy"),
        ("primary_key: true", "primary_key: maybe", "6: collections[0].fields[0].fides_meta.prima"),
        ("primary_key: true", "data_type: text", "6: collections[0].fields[0].fides_meta.data_ty"),
        (
            "name: seen_at",
            "name: no",
            "9: collections[0].fields[2].name: no can mean false",
        ),
        ("name: seen_at", "name: 12", "9: collections[0].fields[2].name: should be text, YAML re"),
        ("name: seen_at", "name: ''", "9: collections[0].fields[2].name: should not be empty"),
        ("name: seen_at", "name: phone", "9: collections[0].fields[2].name: 'phone' occurs twice,"),
        ("name: seen_at", "nam: seen_at", "9: collections[0].fields[2].name: is required but mis"),
        ("- name: seen_at", "- seen_at", "9: collections[0].fields[2]: "),
        ("fides_key: shop", "fides_key: 商店", "1: fides_key: "),
        ("fides_key: shop", "fides_key: <instance>", "1: fides_key: names a database and its fol"),
        ("fides_key: shop", "fides_key: ..", "1: fides_key: names a database and its folders"),
        ("fides_key: shop", 'fides_key: "shop\\n"', "1: fides_key: names a database and its fo"),
        ("fides_key: shop\n", "name: shop\n", "1: fides_key: is required but missing"),
        (
            "fides_key: shop",
            "fides_key: shop\ndata_uses: [gossip]",
            "2: data_uses[0]: the taxonomy",
        ),
        ("name: buyer", "name: buyer\n    data_subjects: [martian]", "4: collections[0].data_subj"),
        ("collections:", "collections: {}\ncollectibles:", "2: collections: Input should be a val"),
    ],
)
def test_load_pack_reports_each_fault_of_a_dataset_with_its_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert SHOP.count(old) == 1
    lines = problem_lines(write_pack(tmp_path, datamap__x=SHOP.replace(old, new)))
    assert any(line.startswith(f"datamap/x.yaml:{expected}") for line in lines), lines


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("buyer.name", "collection 'buyer' has no field 'name'"),
        ("seller.id", "no collection of shop is named in 'seller.id' (collection.field)"),
        ("buyer", "no collection of shop is named in 'buyer' (collection.field)"),
    ],
)
def test_load_pack_reports_reference_to_an_unknown_field(
    tmp_path: Path, target: str, message: str
) -> None:
    text = SHOP + dedent(f"""\
        # a second table
          - name: sale
            fields:
              - name: buyer_id
                fides_meta:
                  references:
                    - dataset: shop
                      field: {target}
        """).replace("# a second table\n", "")
    expected = f"collections[1].fields[0].fides_meta.references[0].field: {message}"
    assert problem_lines(write_pack(tmp_path, datamap__x=text)) == [
        f"datamap/x.yaml:16: {expected}"
    ]


def test_load_pack_accepts_reference_to_another_database_but_reports_unknown_field_in_it(
    tmp_path: Path,
) -> None:
    other = """\
        fides_key: crm
        collections:
          - name: sales.lead
            fields:
              - name: buyer_id
                fides_meta: {references: [{dataset: shop, field: buyer.id, direction: to}]}
        """
    pack = load_pack(write_pack(tmp_path, datamap__crm=other, datamap__shop=SHOP))
    [reference] = pack.database("crm").collections["sales.lead"].fields["buyer_id"].references
    assert (reference.database, reference.collection, reference.field) == ("shop", "buyer", "id")
    bad = {"datamap__crm": other.replace("buyer.id", "buyer.key"), "datamap__shop": SHOP}
    assert "collection 'buyer' has no field 'key'" in problem_lines(write_pack(tmp_path, **bad))[0]


def test_load_pack_reports_two_data_maps_with_the_same_database_name(tmp_path: Path) -> None:
    """Databases with the same name could not be distinguished on the command line."""
    assert problem_lines(write_pack(tmp_path, datamap__a=SHOP, datamap__b="\n" + SHOP)) == [
        "datamap/b.yaml:2: fides_key: another data map has this name: datamap/a.yaml:1"
    ]


def test_load_pack_reports_repeated_collection_or_field_only_once(tmp_path: Path) -> None:
    """The message has the line numbers of both occurrences."""
    text = SHOP + SHOP.split("collections:\n")[1].replace("seen_at", "phone")
    assert problem_lines(write_pack(tmp_path, datamap__a=text)) == [
        "datamap/a.yaml:10: collections[1].name: 'buyer' occurs twice, first in line 3",
        "datamap/a.yaml:16: collections[1].fields[2].name: 'phone' occurs twice, first in line 14",
    ]


def test_load_pack_reports_two_collections_of_the_same_table(tmp_path: Path) -> None:
    """The records of the table would be counted twice."""
    text = SHOP + "  - {name: public.buyer, fields: []}\n"
    assert problem_lines(write_pack(tmp_path, datamap__a=text)) == [
        "datamap/a.yaml:10: collections[1].name: is the same table as collection 'buyer': "
        "public.buyer"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- fides_key: x\n", "1: is not a data map: it is neither a fideslang Dataset"),
        ("datasets: []\n", "1: is not a data map: it is neither a fideslang Dataset"),
        ("dataset:\n  fides_key: x\n", "1: dataset: should be a list"),
        ("dataset:\n  - x\n", "2: dataset[0]: should be a mapping"),
        ("dataset: []\nsystems: []\n", "2: systems: a Fides manifest has no such resource"),
        ("data_category: [{fides_key: user.x}]\n", "1: data_category[0]"),
    ],
)
def test_load_pack_reports_file_in_datamap_folder_that_is_no_data_map(
    tmp_path: Path, text: str, expected: str
) -> None:
    """Every file of datamap/ must be a fideslang Dataset or a Fides manifest."""
    lines = problem_lines(write_pack(tmp_path, datamap__x=text))
    assert any(line.startswith(f"datamap/x.yaml:{expected}") for line in lines), lines


def test_policy_pack_raises_usage_error_for_unknown_database_name(tmp_path: Path) -> None:
    pack = load_pack(write_pack(tmp_path))
    with pytest.raises(UsageError, match=r"no database shops\. It maps: shop\."):
        pack.database("shops")
