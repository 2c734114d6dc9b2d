"""The rule files of a pack: their defaults, and each fault with its line number."""

from __future__ import annotations

from datetime import time
from pathlib import Path

import pytest
import yaml

from include.evidence.model import judge
from include.messages import Message
from include.policy import SHIPPED
from include.policy.retention import Window
from include.policy.rules import LANGUAGES, BackupRules, Calendar, Indicator, NotificationRules
from include.registry import load_pack
from include.reports.i18n import Translator
from tests.policy.packs import SHOP, problem_lines, write_pack

CONTROL = """\
- id: backup.offsite
  clause: "4.2"
  title: {en: Backed up, zh-CN: 已备份}
  workflow: backup_offsite
  cadence: P1D
  indicator: {name: missing, target: "= 0"}
  sources:
    - {instrument: PIPL, version: "2021", article: "51"}
"""
RULE = """\
- class: contact
  collection: buyer
  clock: seen_at
  period: P90D
  action: keep
  basis: business
"""


def test_shipped_backup_calendar_and_notices_yaml_equal_the_defaults_in_code() -> None:
    shipped = {
        name: yaml.safe_load((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("backup", "calendar", "notices")
    }
    assert shipped["backup"] == BackupRules().model_dump()
    assert shipped["calendar"] == Calendar().model_dump(mode="json")
    assert shipped["notices"] == NotificationRules().model_dump(mode="json") | {
        "may_opt_out": ["training.department"]
    }


def test_shipped_controls_include_clause_4_2_controls_for_backup_and_restore_drill(
    tmp_path: Path,
) -> None:
    """Backup and restore drill each have controls of clause 4.2.

    The controls have titles in both languages, and name the law that requires them.
    """
    pack = load_pack(write_pack(tmp_path))
    offsite, drill = pack.controls_of("backup_offsite"), pack.controls_of("drill_restore")
    assert [control.id for control in offsite] == ["backup.offsite", "backup.separation"]
    assert [control.id for control in drill] == ["restore.proven"]
    assert pack.controls_of("absent") == ()
    for control in (*offsite, *drill):
        assert control.clause == "4.2"
        assert set(LANGUAGES) <= set(control.title)
        assert control.owner in pack.roles
        assert control.sources[0].article.startswith("51")
    assert drill[0].cadence.days == 7


def test_control_message_contains_english_and_chinese_title_of_the_control(tmp_path: Path) -> None:
    pack = load_pack(write_pack(tmp_path))
    message = pack.controls[0].message
    assert isinstance(message, Message)
    assert message.text == pack.controls[0].title["en"]
    assert message.translations["zh-CN"] == pack.controls[0].title["zh-CN"]


def test_omitted_keys_of_backup_yaml_have_default_values(tmp_path: Path) -> None:
    pack = load_pack(write_pack(tmp_path, backup="keep: {daily: 14}\n"))
    assert pack.backup == BackupRules.model_validate({"keep": {"daily": 14}})
    assert (pack.backup.keep.daily, pack.backup.keep.weekly, pack.backup.lock_days) == (14, 5, 35)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("keep:\n  dayly: 7\n", "2: keep.dayly: this key is unknown"),
        ("keeps: {}\n", "1: keeps: this key is unknown"),
        ("keep:\n  daily: '7'\n", "2: keep.daily: Input should be a valid integer"),
        ("keep:\n  daily: true\n", "2: keep.daily: Input should be a valid integer"),
        ("keep:\n  daily: 7.5\n", "2: keep.daily: Input should be a valid integer"),
        ("keep:\n  daily: -1\n", "2: keep.daily: Input should be greater than or equal to 0"),
        ("keep:\n  floor: 0\n", "2: keep.floor: Input should be greater than or equal to 1"),
        (
            "keep:\n  daily: 1\n  weekly: 0\n  monthly: 1\n  floor: 3\n",
            "5: keep.floor: daily + weekly + monthly keep 2, below the floor of 3",
        ),
        (
            "lock_days: 35\nkeep:\n  daily: 1\n  weekly: 1\n  monthly: 0\n",
            "2: keep: daily + weekly + monthly keep 2, below the floor of 3",
        ),
        ("expire_days: 60\nlock_days: 61\n", "2: lock_days: the lock outlasts expire_days (60)"),
        ("lock_days: 61\nexpire_days: 60\n", "1: lock_days: the lock outlasts expire_days (60)"),
        ("lock_days: 0\n", "1: lock_days: Input should be greater than or equal to 1"),
        ("expire_days: 34\n", "1: expire_days: Input should be greater than or equal to 35"),
        ("expire_days: 91\n", "1: expire_days: Input should be less than or equal to 90"),
        ("recipients: {minimum: 0}\n", "1: recipients.minimum: Input should be greater"),
        ("drill:\n  choose: newest\n", "2: drill.choose: Input should be 'latest' or 'undrilled'"),
        ("defaults: {rto_minutes: 0}\n", "1: defaults.rto_minutes: Input should be greater"),
        ("keep:\n", "1: keep: the key has no value: write null for no value"),
        ("- keep\n", "1: Input should be an object"),
        ("just words\n", "1: Input should be an object"),
    ],
)
def test_load_pack_reports_each_fault_of_backup_yaml_with_its_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    """Faults are unknown keys, wrong types, and numbers that contradict each other."""
    [line] = problem_lines(write_pack(tmp_path, backup=text))
    assert line.startswith(f"backup.yaml:{expected}")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'clause: "4.2"',
            "clause: 4.2",
            "2: [0].clause: should be text, YAML reads it as a number",
        ),
        ('clause: "4.2"', "clause: four", "2: [0].clause: String should match pattern"),
        ("zh-CN: 已备份", "fr: Fait", "3: [0].title: the text is missing in zh-CN"),
        ("{en: Backed up, zh-CN: 已备份}", "Backed up", "3: [0].title: Input should be an object"),
        ("zh-CN: 已备份", 'zh-CN: " "', "3: [0].title.zh-CN: String should match pattern"),
        ("P1D", "daily", "5: [0].cadence: should be an ISO 8601 duration"),
        ("P1D", "P0D", "5: [0].cadence: should be longer than zero"),
        ('"= 0"', '"few"', "6: [0].indicator.target: String should match pattern"),
        ("  cadence: P1D\n", "", "1: [0].cadence: is required but missing"),
        (
            ', version: "2021"',
            "",
            "8: [0].sources[0].version: is required but missing",
        ),
        ('"51"', "51", "8: [0].sources[0].article: should be text, YAML reads it as a number"),
        ('"2021"', "no", "8: [0].sources[0].version: no can mean false or the text"),
        ("workflow: backup", "owner: nobody\n  workflow: backup", "4: [0].owner: roles.yaml has"),
        ("id: backup.offsite", "id: Backup!", "1: [0].id: String should match pattern"),
        (
            '\n    - {instrument: PIPL, version: "2021", article: "51"}',
            " []",
            "7: [0].sources: should not be empty",
        ),
        ("workflow:", "work flow: x\n  workflow:", '4: [0]."work flow": this key is unknown'),
    ],
)
def test_load_pack_reports_each_fault_of_controls_yaml_with_its_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert CONTROL.count(old) == 1
    [line] = problem_lines(write_pack(tmp_path, controls=CONTROL.replace(old, new)))
    assert line.startswith(f"controls.yaml:{expected}")


def test_load_pack_reports_repeated_control_id(tmp_path: Path) -> None:
    [line] = problem_lines(write_pack(tmp_path, controls=CONTROL + CONTROL))
    assert line == "controls.yaml:9: [1].id: 'backup.offsite' occurs twice"


def titled(control_id: str, english: str) -> str:
    """Return a control of clause 4.2 that states a title of the clause."""
    title = f"  clause_title: {{en: {english}, zh-CN: 存储}}\n  title:"
    return CONTROL.replace("backup.offsite", control_id).replace("  title:", title)


def test_control_without_clause_title_has_the_title_from_another_control_of_the_clause(
    tmp_path: Path,
) -> None:
    other = titled("backup.other", "Storage").replace("backup_offsite", "drill_restore")
    pack = load_pack(write_pack(tmp_path, controls=CONTROL + other))
    [control] = judge(pack.controls_of("backup_offsite"), [])
    texts = [Translator(locale).text(control.clause_text) for locale in ("en", "zh_CN")]
    assert texts == ["4.2 Storage", "4.2 存储"]
    untitled = load_pack(write_pack(tmp_path / "untitled", controls=CONTROL))
    [control] = judge(untitled.controls_of("backup_offsite"), [])
    assert Translator("en").text(control.clause_text) == "4.2"


def test_load_pack_reports_controls_of_the_same_clause_with_different_clause_titles(
    tmp_path: Path,
) -> None:
    controls = titled("a", "Storage") + titled("b", "Storage") + titled("c", "Backup")
    [line] = problem_lines(write_pack(tmp_path, controls=controls))
    expected = "another control of clause 4.2 states 'Storage' in en"
    assert line.endswith(f"[2].clause_title: {expected}")
    chinese = titled("a", "Storage") + titled("b", "Storage").replace("存储", "备份")
    [line] = problem_lines(write_pack(tmp_path / "chinese", controls=chinese))
    assert line.endswith("[1].clause_title: another control of clause 4.2 states '存储' in zh-CN")


def test_law_of_a_control_needs_one_name_for_all_languages_or_a_name_in_every_language(
    tmp_path: Path,
) -> None:
    """A single name is used for all languages. A mapping must have a name for every language."""
    bilingual = CONTROL.replace("PIPL", "{en: PIPL, zh-CN: 个人信息保护法}")
    control = load_pack(write_pack(tmp_path / "a", controls=bilingual)).controls[0]
    assert control.sources[0].instrument["zh-CN"] == "个人信息保护法"
    control = load_pack(write_pack(tmp_path / "b", controls=CONTROL)).controls[0]
    assert control.sources[0].instrument == {"en": "PIPL", "zh-CN": "PIPL"}
    [line] = problem_lines(
        write_pack(tmp_path / "c", controls=CONTROL.replace("PIPL", "{en: PIPL}"))
    )
    assert "sources[0].instrument: the text is missing in zh-CN" in line


def test_retention_rule_may_have_one_or_several_columns_in_the_key_clock(tmp_path: Path) -> None:
    second = RULE.replace("contact", "file").replace("clock: seen_at", "clock: [seen_at, id]")
    second = second.replace("business", "{instrument: GB/T 27917, version: x, article: y}")
    pack = load_pack(write_pack(tmp_path, retention=RULE + second))
    contact, file = pack.retention
    assert (contact.record_class, contact.clock, contact.basis) == (
        "contact",
        ("seen_at",),
        "business",
    )
    assert contact.period.days == 90
    assert file.clock == ("seen_at", "id")
    assert file.basis != "business"
    assert file.basis.instrument["en"] == "GB/T 27917"


def test_policy_pack_without_retention_yaml_has_no_retention_rules(tmp_path: Path) -> None:
    """The shipped rules belong to the data map of the sample company and are not defaults."""
    assert load_pack(write_pack(tmp_path)).retention == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("P90D", "90 days", "4: [0].period: should be an ISO 8601 duration"),
        ("keep", "shred", "5: [0].action: Input should be 'delete', 'drop_partition', 'mask'"),
        ("buyer", "seller", "2: [0].collection: no data map has a collection 'seller'"),
        ("seen_at", "lost_at", "3: [0].clock: collection 'buyer' has no field 'lost_at'"),
        ("business", "law", "6: [0].basis: Input should be 'business'"),
        (
            "business",
            "{instrument: x, version: y}",
            "6: [0].basis.article: is required but missing",
        ),
        ("clock: seen_at", "clock: []", "3: [0].clock: should not be empty"),
        ("clock: seen_at", "database: x\n  clock: seen_at", "3: [0].database: the pack maps no"),
        ("class", "klass", "1: [0].class: is required but missing"),
        (
            "keep",
            "delete\n  triggers_update: seller",
            "6: [0].triggers_update: shop has no collection 'seller'",
        ),
        ("keep", "keep\n  triggers_update: buyer", "1: [0]: triggers_update belongs to an action"),
    ],
)
def test_load_pack_reports_each_fault_of_retention_yaml_with_its_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert RULE.count(old) == 1
    lines = problem_lines(write_pack(tmp_path, retention=RULE.replace(old, new)))
    assert any(line.startswith(f"retention.yaml:{expected}") for line in lines), lines


def test_load_pack_reports_two_record_classes_that_mask_the_same_collection(tmp_path: Path) -> None:
    """The erasure ledger lists a masked record only once.

    Two databases may mask collections of one name.
    """
    masks = RULE.replace("keep", "mask\n  mask: {phone: phone}")
    second = masks.replace("contact", "second")
    deletes = RULE.replace("contact", "third").replace("keep", "delete")
    [line] = problem_lines(write_pack(tmp_path / "a", retention=masks + deletes + second))
    assert line.startswith("retention.yaml:18: [2].action: the class 'contact' masks records of")
    maps = {f"datamap__{name}": SHOP.replace("shop", name) for name in ("north", "south")}
    north, south = (
        rule.replace("collection:", f"database: {name}\n  collection:")
        for name, rule in (("north", masks), ("south", second))
    )
    assert load_pack(write_pack(tmp_path / "b", retention=north + south, **maps)).retention


def test_load_pack_reports_retention_rule_that_masks_a_primary_key_column(tmp_path: Path) -> None:
    """A record whose primary key is masked could not be identified again."""
    masks = RULE.replace("keep", "mask\n  mask: {phone: phone, id: erase}")
    [line] = problem_lines(write_pack(tmp_path, retention=masks))
    assert line == "retention.yaml:6: [0].mask.id: a column of the primary key cannot be masked"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'limit: {percent: "five%"}',
            "disposition.yaml:1: limit.percent: should be a percentage such as 5%",
        ),
        (
            'limit: {percent: "%"}',
            "disposition.yaml:1: limit.percent: should be a percentage such as 5%",
        ),
        ('limit: {percent: "NaN%"}', "disposition.yaml:1: limit.percent: "),
        (
            'window: {begins: "01:00", ends: "01:00"}',
            "disposition.yaml:1: window: should not end when it begins",
        ),
        *(
            (
                f"window: {{begins: {begins}, ends: 06:00}}",
                "disposition.yaml:1: window.begins: should be a time of day from 00:00 to 23:59",
            )
            for begins in ("22:00+08:00", "22:00Z", '"24:00"', "T2200", "22", "12:30:15", "1:00")
        ),
    ],
)
def test_load_pack_reports_each_fault_of_disposition_yaml_with_its_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    """Faults are shares that are not numbers, and windows that are empty or have a UTC offset."""
    [line] = problem_lines(write_pack(tmp_path, disposition=text))
    assert line.startswith(expected)


def test_load_pack_reads_unquoted_times_of_the_disposition_window(tmp_path: Path) -> None:
    """YAML 1.1 reads 12:30 as the number 750."""
    text = "window: {begins: 12:30, ends: 23:05}"
    window = load_pack(write_pack(tmp_path, disposition=text)).disposition.window
    assert window == Window(begins=time(12, 30), ends=time(23, 5))


@pytest.mark.parametrize("version", ["2024-13-45", "2023-02-29", "2024-1-5"])
def test_load_pack_reports_version_of_a_law_that_is_written_as_an_impossible_date(
    tmp_path: Path, version: str
) -> None:
    """An edition may be a year, a date or words.

    A text that is written like a date must be a real date.
    """
    text = CONTROL.replace('"2021"', version)
    [line] = problem_lines(write_pack(tmp_path / "a", controls=text))
    assert line.startswith("controls.yaml:8: [0].sources[0].version: should be a day of the")
    for edition in ("2024-02-29", '"2021"', "2019 amended"):
        load_pack(write_pack(tmp_path / "b", controls=CONTROL.replace('"2021"', edition)))


def test_load_pack_reports_ambiguous_and_invalid_values_of_backup_yaml_together(
    tmp_path: Path,
) -> None:
    """An ambiguous value is reported only once, without an additional type error."""
    text = 'keep: {daily: 010, weekly: "five"}\nlock_days: yes\n'
    problems = problem_lines(write_pack(tmp_path, backup=text))
    assert [line.split(": ")[:2] for line in problems] == [
        ["backup.yaml:1", "keep.daily"],
        ["backup.yaml:1", "keep.weekly"],
        ["backup.yaml:2", "lock_days"],
    ]


def test_load_pack_reports_repeated_record_class(tmp_path: Path) -> None:
    assert problem_lines(write_pack(tmp_path, retention=RULE + RULE)) == [
        "retention.yaml:7: [1].class: 'contact' occurs twice"
    ]


def test_load_pack_reports_retention_rule_without_database_if_two_databases_have_its_collection(
    tmp_path: Path,
) -> None:
    """The loader never guesses the database."""
    maps = {f"datamap__{name}": _shop(name) for name in ("north", "south")}
    [line] = problem_lines(write_pack(tmp_path / "a", retention=RULE, **maps))
    assert line.endswith("several databases have it: name one as database: north, south")
    named = RULE.replace("collection:", "database: south\n  collection:")
    assert load_pack(write_pack(tmp_path / "b", retention=named, **maps)).retention


def _shop(name: str) -> str:
    fields = "[{name: id}, {name: seen_at}]"
    return f"fides_key: {name}\ncollections: [{{name: buyer, fields: {fields}}}]"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("calendar", "timezone: Beijing\n", "1: timezone: is not an IANA timezone"),
        ("calendar", "timezone: ../../etc/passwd\n", "1: timezone: is not an IANA timezone"),
        ("calendar", "timezone: 8\n", "1: timezone: should be text"),
        ("calendar", "zone: UTC\n", "1: zone: this key is unknown"),
        ("roles", "- {id: a}\n", "1: [0].title: is required but missing"),
        ("roles", "- id: a\n  title: {en: A, zh-CN: 甲}\n  mail: [nobody]\n", "3: [0].mail[0]: "),
    ],
)
def test_load_pack_reports_faults_of_calendar_and_roles(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    controls = {"controls": CONTROL} if name == "roles" else {}
    [line] = problem_lines(write_pack(tmp_path, **{name: text}, **controls))
    assert line.startswith(f"{name}.yaml:{expected}")


def test_load_pack_reports_repeated_role_id(tmp_path: Path) -> None:
    """It is also a fault if the owner of a control is not a role of the pack."""
    role = "- id: a\n  title: {en: A, zh-CN: 甲}\n"
    assert problem_lines(write_pack(tmp_path / "a", roles=role + role, controls=CONTROL)) == [
        "roles.yaml:3: [1].id: 'a' occurs twice"
    ]
    lines = problem_lines(write_pack(tmp_path / "b", roles=role))
    assert all("owner: roles.yaml has no '" in line for line in lines)


def test_default_timezone_is_shanghai(tmp_path: Path) -> None:
    assert load_pack(write_pack(tmp_path)).calendar.zone.key == "Asia/Shanghai"


@pytest.mark.parametrize(
    ("target", "met", "not_met"),
    [
        ("= 0", [0, 0.0], [1, -1, 0.1]),
        ("<= 26", [26, 0], [26.01]),
        ("< 26", [25.9], [26]),
        (">= 95%", [0.95, 1], [0.9499, 0]),
        (">95.5%", [0.96], [0.955]),
    ],
)
def test_control_indicator_compares_measured_value_with_target_without_rounding(
    target: str, met: list[float], not_met: list[float]
) -> None:
    """A target in percent is compared with a measured ratio, without rounding."""
    indicator = Indicator(name="x", target=target)
    assert all(indicator.is_met_by(value) for value in met)
    assert not any(indicator.is_met_by(value) for value in not_met)
