"""Data maps: fideslang's form, our keys, names of every kind, and each fault with its line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.policy.datamap import MappedDatabase
from include.registry import load_pack
from include.services.errors import UsageError
from tests.policy.packs import SHOP, said, write_pack

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


def test_a_fides_manifest_loads_unchanged(tmp_path: Path) -> None:
    """With no key of ours it is a database at customer_db, in schema public, with the defaults."""
    pack = load_pack(write_pack(tmp_path, datamap__x=FIDES))
    database = pack.database("fides_style")
    assert database.title == "Written for Fides"
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
    known, unknown = database.collections["visit"].fields["customer_id"].references
    assert (known.database, known.collection, known.field) == ("fides_style", "customer", "id")
    assert (unknown.database, unknown.collection, unknown.field) == ("elsewhere", "", "person.id")


def test_what_fides_ignores_is_remarked(tmp_path: Path) -> None:
    """A mistyped key is no error to fideslang; whoever checks the pack still hears of it."""
    text = SHOP.replace("data_categories", "data_catgories")
    remarks = [str(one) for one in load_pack(write_pack(tmp_path / "a", datamap__x=text)).remarks]
    assert remarks == [
        "datamap/x.yaml:8: collections[0].fields[1].data_catgories: "
        "fideslang does not know this key and ignores it"
    ]
    remarks = [str(one) for one in load_pack(write_pack(tmp_path / "b", datamap__x=FIDES)).remarks]
    assert [line.split(": ")[1] for line in remarks] == [
        "dataset[0].data_qualifier",
        "dataset[0].retention",
        "dataset[0].third_country_transfers",
        "dataset[0].collections[0].fields[1].fidesops_meta.references[1].dataset",
    ]


def test_our_keys_are_read(tmp_path: Path) -> None:
    """Everything under meta.parcelseal, for the database and for single collections."""
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
    assert [(one.collection, one.field) for one in database.newest] == [("buyer", "seen_at")]
    buyer = database.collections["buyer"]
    assert (buyer.schema_name, buyer.table) == ("crm", "客户")
    assert (buyer.data_class, buyer.department, buyer.owner) == ("confidential", "CS", "li")


def test_collections_inherit_from_their_database(tmp_path: Path) -> None:
    """Class, owner, department and data categories reach down where nothing nearer is said."""
    text = SHOP.replace("collections:", "data_categories: [user]\ncollections:") + dedent("""\
        meta: {parcelseal: {class: internal, owner: zhang, department: IT, schema: Sales}}
        """)
    buyer = database_of(tmp_path, text).collections["buyer"]
    assert (buyer.data_class, buyer.owner, buyer.department) == ("internal", "zhang", "IT")
    assert (buyer.schema_name, buyer.table) == ("Sales", "buyer")
    assert buyer.fields["phone"].categories == ("user", "user.contact.phone_number")
    assert buyer.fields["id"].is_personal


def test_the_nearest_data_subjects_hold(tmp_path: Path) -> None:
    """A column about staff in a table about customers is not about both."""
    text = SHOP.replace("name: buyer\n", "name: buyer\n    data_subjects: [customer]\n")
    text = text.replace("name: seen_at\n", "name: seen_at\n        data_subjects: [employee]\n")
    fields = database_of(tmp_path, text).collections["buyer"].fields
    assert fields["phone"].subjects == ("customer",)
    assert fields["seen_at"].subjects == ("employee",)


def test_targets_come_from_backup_yaml(tmp_path: Path) -> None:
    """A database that names no RTO or RPO has the pack's."""
    folder = write_pack(tmp_path, backup="defaults: {rto_minutes: 15, rpo_hours: 2}\n")
    database = load_pack(folder).database("shop")
    assert (database.rto, database.rpo) == (timedelta(minutes=15), timedelta(hours=2))


@pytest.mark.parametrize(
    ("name", "said", "expected"),
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
def test_any_table_name_can_be_mapped(
    tmp_path: Path, name: str, said: dict[str, str] | None, expected: tuple[str, str]
) -> None:
    """A dot splits schema and table unless the schema or the table is named."""
    meta = {"parcelseal": {"collections": {name: said} if said else {}}}
    dataset = {"fides_key": "x", "meta": meta, "collections": [{"name": name, "fields": []}]}
    database = database_of(tmp_path, yaml.safe_dump(dataset, allow_unicode=True))
    assert (database.collections[name].schema_name, database.collections[name].table) == expected


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\x7f\x85\x00"), min_size=1, max_size=8
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(tables=st.dictionaries(_NAMES, st.lists(_NAMES, min_size=1, unique=True), min_size=1))
def test_names_and_references_survive_whatever_they_are(
    tmp_path: Path, tables: dict[str, list[str]]
) -> None:
    """Every table and column is found under its own name, and every reference leads to a field.

    Names with dots may leave two ways to split ``collection.field``; each leads to a real field.
    """
    targets = [(table, column) for table, columns in tables.items() for column in columns]
    references = [{"dataset": "x", "field": f"{table}.{column}"} for table, column in targets]
    (first, *_rest) = targets
    collections = [
        {
            "name": table,
            "fields": [
                {"name": one, "fides_meta": {"references": references}}
                if (table, one) == first
                else {"name": one}
                for one in columns
            ],
        }
        for table, columns in tables.items()
    ]
    # tables spelled out: `a.b` would else be table b of schema a, and may stand twice
    ours = {"collections": {table: {"table": table} for table in tables}}
    dataset = {"fides_key": "x", "meta": {"parcelseal": ours}, "collections": collections}
    database = database_of(tmp_path, yaml.safe_dump(dataset, allow_unicode=True, default_style='"'))
    assert {n: list(c.fields) for n, c in database.collections.items()} == tables
    assert [one.table for one in database.collections.values()] == list(tables)
    found = database.collections[first[0]].fields[first[1]].references
    assert [f"{one.collection}.{one.field}" for one in found] == [r["field"] for r in references]
    assert {(one.collection, one.field) for one in found} <= set(targets)


def test_a_company_may_add_to_the_taxonomy(tmp_path: Path) -> None:
    """A manifest's own data categories count in every data map of the pack."""
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
    assert [one.message for one in pack.remarks] == ["is not used by ParcelSeal"]


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
        ("name: seen_at", "name: phone", "9: collections[0].fields[2].name: 'phone' stands twice,"),
        ("name: seen_at", "nam: seen_at", "9: collections[0].fields[2].name: is required and mis"),
        ("- name: seen_at", "- seen_at", "9: collections[0].fields[2]: "),
        ("fides_key: shop", "fides_key: 商店", "1: fides_key: "),
        ("fides_key: shop", "fides_key: <instance>", "1: fides_key: names a database and its fol"),
        ("fides_key: shop", "fides_key: ..", "1: fides_key: names a database and its folders"),
        ("fides_key: shop", 'fides_key: "shop\\n"', "1: fides_key: names a database and its fo"),
        ("fides_key: shop\n", "name: shop\n", "1: fides_key: is required and missing"),
        (
            "fides_key: shop",
            "fides_key: shop\ndata_uses: [gossip]",
            "2: data_uses[0]: the taxonomy",
        ),
        ("name: buyer", "name: buyer\n    data_subjects: [martian]", "4: collections[0].data_subj"),
        ("collections:", "collections: {}\ncollectibles:", "2: collections: Input should be a val"),
    ],
)
def test_each_fault_of_a_dataset_has_its_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """The judgement of fideslang, the taxonomy and names, each where it stands."""
    assert SHOP.count(old) == 1
    lines = said(write_pack(tmp_path, datamap__x=SHOP.replace(old, new)))
    assert any(line.startswith(f"datamap/x.yaml:{expected}") for line in lines), lines


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("buyer.name", "collection 'buyer' has no field 'name'"),
        ("seller.id", "no collection of shop is named in 'seller.id' (collection.field)"),
        ("buyer", "no collection of shop is named in 'buyer' (collection.field)"),
    ],
)
def test_a_reference_into_the_void_is_a_fault(tmp_path: Path, target: str, message: str) -> None:
    """References inside mapped databases have to lead somewhere."""
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
    assert said(write_pack(tmp_path, datamap__x=text)) == [f"datamap/x.yaml:16: {expected}"]


def test_references_lead_from_one_database_to_another(tmp_path: Path) -> None:
    """And are checked there."""
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
    assert "collection 'buyer' has no field 'key'" in said(write_pack(tmp_path, **bad))[0]


def test_a_database_has_one_data_map(tmp_path: Path) -> None:
    """Two of one name could not be told apart on the command line."""
    assert said(write_pack(tmp_path, datamap__a=SHOP, datamap__b="\n" + SHOP)) == [
        "datamap/b.yaml:2: fides_key: another data map has this name: datamap/a.yaml:1"
    ]


def test_a_name_that_stands_twice_is_one_fault(tmp_path: Path) -> None:
    """Of a collection and of a column, each with both lines."""
    text = SHOP + SHOP.split("collections:\n")[1].replace("seen_at", "phone")
    assert said(write_pack(tmp_path, datamap__a=text)) == [
        "datamap/a.yaml:10: collections[1].name: 'buyer' stands twice, first in line 3",
        "datamap/a.yaml:16: collections[1].fields[2].name: 'phone' stands twice, first in line 14",
    ]


def test_a_table_has_one_collection(tmp_path: Path) -> None:
    """Two collections of one table would be counted twice."""
    text = SHOP + "  - {name: public.buyer, fields: []}\n"
    assert said(write_pack(tmp_path, datamap__a=text)) == [
        "datamap/a.yaml:10: collections[1].name: is the same table as collection 'buyer': "
        "public.buyer"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- fides_key: x\n", "1: is no data map: neither a fideslang Dataset"),
        ("datasets: []\n", "1: is no data map: neither a fideslang Dataset"),
        ("dataset:\n  fides_key: x\n", "1: dataset: should be a list"),
        ("dataset:\n  - x\n", "2: dataset[0]: should be a mapping"),
        ("dataset: []\nsystems: []\n", "2: systems: a Fides manifest has no such resource"),
        ("data_category: [{fides_key: user.x}]\n", "1: data_category[0]"),
    ],
)
def test_what_is_no_data_map_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    """Every file of datamap/ is a Dataset or a manifest."""
    lines = said(write_pack(tmp_path, datamap__x=text))
    assert any(line.startswith(f"datamap/x.yaml:{expected}") for line in lines), lines


def test_an_unknown_database_is_a_usage_error(tmp_path: Path) -> None:
    """The message names those that there are."""
    pack = load_pack(write_pack(tmp_path))
    with pytest.raises(UsageError, match=r"no database shops\. It maps: shop\."):
        pack.database("shops")
