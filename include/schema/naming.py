"""Split names of columns and tables into words, and derive from them what the data is about.

For a column, this is a data category; for a table, a kind of content such as customers or orders.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from functools import lru_cache

from include.schema.vocabulary import ABBREVIATIONS, COLUMN_WORDS

_SPLIT = re.compile(
    r"[A-Z]{2,}s?(?=[A-Z][a-z])|[A-Z]?[a-zß-ÿ]+|[A-Z]+|[0-9]+|[\u3400-\u9fff]+|[^\W\d_]+"
)
HAN = re.compile(r"[\u3400-\u9fff]")


class Subject(StrEnum):
    """The kind of content that a table's name indicates."""

    CUSTOMER = "customer"
    EMPLOYEE = "employee"
    ORGANIZATION = "organization"
    ADDRESS = "address"
    CONSENT = "consent"
    PURCHASE = "purchase"
    WORK = "work"
    HEALTH = "health"
    ACCOUNT = "account"
    SHIPMENT = "shipment"
    THING = "thing"
    UNKNOWN = "unknown"

    @property
    def is_person(self) -> bool:
        """Return whether each row of a table with this kind of content describes a person."""
        return self in (Subject.CUSTOMER, Subject.EMPLOYEE)


_SUBJECTS: tuple[tuple[Subject, str, str, str], ...] = (
    # subject, English words, pinyin, Chinese
    (Subject.EMPLOYEE, "employee staff worker personnel doctor physician clinician nurse teacher"
     " driver courier rider salesperson technician trainer instructor lecturer mitarbeiter empleado"
     " colleague workforce crew contractor freelancer therapist dentist practitioner engineer"
     " officer operator agent analyst adviser advisor supervisor angestellte fahrer zusteller",
     "yg yuangong zg zhigong ys yisheng hs ryxx", "员工|职工|医生|医师|司机|护士|教师|雇员"),
    (Subject.CUSTOMER, "customer client user member patient person people contact subscriber"
     " passenger guest student pupil applicant candidate borrower beneficiary dependent guardian"
     " lead prospect voter donor resident citizen sender recipient receiver consignee visitor"
     " buyer individual reader lector kunde cliente persona attendee participant insured"
     " policyholder accountholder cardholder claimant tenant child spouse parent kin referee"
     " referral occupant householder player follower respondent signatory benutzer nutzer mitglied"
     " mitglieder bewerber empfänger empfaenger absender interessent",
     "kh kehu yh yonghu hy huiyuan hz huanzhe br bingren brxx hzxx xs xuesheng ry renyuan jhr lxr",
     "客户|用户|会员|患者|病人|学生|人员|联系人|读者|居民|旅客|亲属|家长|儿童|业主|村民|乘客"
     "|考生|参保人|借款人"),
    (Subject.ORGANIZATION, "department company supplier vendor partner organization branch store"
     " shop warehouse facility office bank hospital clinic school agency carrier institution"
     " employer manufacturer publisher franchise site depot station location venue ward unit team"
     " subsidiary shipper lieferant firma firmen abteilung filiale niederlassung standort lager",
     "bm bumen ks keshi gs gongsi gys jg jigou yljg",
     "部门|公司|供应商|机构|科室|门店|网点|仓库|合作方"),
    (Subject.ADDRESS, "address adresse anschrift", "dz dizhi", "地址"),
    (Subject.CONSENT, "consent permission preference subscription optin optout", "sqtyjl",
     "同意|授权"),
    (Subject.HEALTH, "visit appointment diagnosis diagnose prescription lab result allergy"
    " vaccination"
     " immunization admission encounter treatment examination procedure observation vital surgery"
     " medication", "jz jzjl jiuzhen cf chufang zd zhenduan jc jcjg bl bingli zy zyjl gh ghjl mz",
     "就诊|处方|诊断|检查|检验|病历|住院|挂号|门诊"),
    (Subject.WORK, "training completion attendance leave absence payroll salary compensation"
     " performance review appraisal evaluation exam score enrollment timesheet shift payslip"
     " employment contract disciplinary goal skill certification qualification education"
     " sickness vacation urlaub schicht arbeitszeit gehalt krankmeldung",
     "kq kaoqin gz gongzi px peixun jx", "成绩|考勤|工资|培训|绩效|考试|请假"
     "|合同"),
    (Subject.PURCHASE, "invoice order purchase payment transaction sale receipt bill billing"
     " charge trade booking reservation rental refund transfer checkout cart basket bestellung"
     " rechnung auftrag aufträge auftraege zahlung buchung kauf käufe",
     "dd dingdan jy jiaoyi zf zhifu fp jf sf", "订单|交易|支付|发票|购买|账单|缴费|收费"),
    (Subject.SHIPMENT, "waybill shipment parcel package delivery consignment sendung paket"
     " pakete lieferung", "yd yundan kd bg",
     "运单|快递|包裹|快件|面单"),
    (Subject.ACCOUNT, "account card loan policy wallet mortgage deposit debit mandate konto"
     " konten lastschrift", "zh"
    " zhanghu yhk",
     "账户|银行卡|贷款|保单"),
    (Subject.THING, "type status role group category level course product item track album artist"
     " genre playlist media template setting config configuration currency country city region"
     " province state holiday calendar version notice division language migration lookup code"
     " question permission inventory stock price tag network server router firewall netzwerk"
     " artikel produkt produkte kategorie preis preise preisliste", "lb zd zidian cp yp yaopin sp",
     "类型|字典|商品|产品|药品|配置|参数"),
)  # fmt: skip
_LINES = frozenset({"line", "lines", "item", "items", "detail", "details", "mx", "entry"})
# Words around a table's subject that carry no meaning.
_PADDING = frozenset({
    "t", "tb", "tbl", "table", "dim", "fact", "stg", "sys", "dbo", "v", "vw", "mv", "info", "infos",
    "information", "master", "mst", "data", "record", "records", "profile", "profiles", "base",
    "basic", "main", "list", "hdr", "header", "detail", "details", "xx", "jbxx", "b", "d",
    "m", "history", "hist",
    "archive", "old", "new", "tmp", "bak", "register", "directory", "his", "hr", "crm", "ods",
    "dwd", "da", "jl", "roster", "entity", "daten", "stammdaten", "liste",
})  # fmt: skip
_HEADS: dict[str, Subject] = {
    word: subject
    for subject, english, pinyin, _han in reversed(_SUBJECTS)
    for word in (english + " " + pinyin).split()
}
_HAN = [(subject, re.compile(han)) for subject, _en, _py, han in _SUBJECTS]
# Undelimited pinyin: the person (patient, customer ...) and the attribute (hzxm: patient's name).
_PERSONS = (
    "hz|br|kh|yg|ys|lxr|jhr|sjr|jjr|fjr|hy|cz|xs|js|ry|yh|sqr|jbr|fr|gr|jt|dw|jjlxr|cyr|bbr|tbr"
)
_ATTRIBUTES = (
    "xm|xb|nl|sfzh|sfzhm|sfz|zjhm|sjh|sjhm|sj|dh|dhhm|lxdh|dz|zz|csrq|yb|yx|mz|gzdw|hyzk|zy|kh|bh"
    "|lxfs|gx"
)
_PINYIN = re.compile(rf"(?:{_PERSONS})({_ATTRIBUTES})")
_PINYIN_TABLE = re.compile(r"([a-z]{2,4}?)(?:jbxx|xxb|xx|jl|jlb|mx|da|b)")
_PINYIN_LOOKUP = re.compile(r"[a-z]{1,6}(?:zd|zdb|dm|dmb|lx)")
PERSON_INITIALS = re.compile(rf"(?:{_PERSONS})(?:{_ATTRIBUTES})?|(?:{_PERSONS})")
_COLUMN_RULES = [
    (category, re.compile(rf"\b(?:{words})$"), re.compile(han) if han else None)
    for category, words, han in COLUMN_WORDS
]
_EXACT_ONLY = frozenset({"first", "last", "land", "long", "contact", "line", "alter", "sin", "pan"})


@lru_cache(maxsize=4096)
def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case. Abbreviations are replaced by full words.

    The name may be in snake_case or camelCase.

    >>> words("custFirstNm")
    ('customer', 'first', 'name')
    """
    parts: list[str] = []
    for part in _SPLIT.findall(unicodedata.normalize("NFKC", name)):
        word = part.lower()
        parts += ABBREVIATIONS.get(word, word).split()
    return tuple(parts)


def phrase(name: str) -> str:
    """Return the words of a name (see `words`) as one text, separated by spaces."""
    return " ".join(words(name))


@lru_cache(maxsize=4096)
def category_of(name: str) -> str | None:
    """Return the data category that a column's name suggests, regardless of the column's table.

    Return None if the name suggests no data category.
    """
    name_words = phrase(name)
    trimmed = re.sub(
        r" (?:[0-9]+|primary|main|value|text|raw|masked|encrypted|enc|hash)$", "", name_words
    )
    joined = trimmed.replace(" ", "")
    if (pinyin := _PINYIN.fullmatch(joined)) and not HAN.search(joined):
        trimmed = {"kh": "khbh", "bh": "khbh", "gx": "gx"}.get(pinyin[1], pinyin[1])
    for category, pattern, han in _COLUMN_RULES:
        matched = pattern.search(trimmed) or pattern.search(trimmed.removesuffix(" number"))
        if matched and (matched[0] not in _EXACT_ONLY or matched[0] == trimmed):
            return category
        if han and han.search(trimmed):
            return category
    return None


@lru_cache(maxsize=4096)
def subject_of(table: str) -> Subject:
    """Return the kind of content that a table's name indicates.

    General words at the end of the name, such as ``table`` or ``info``, are ignored. The last of
    the other words decides.
    """
    name_words = list(words(table))
    while len(name_words) > 1 and name_words[-1] in _PADDING:
        name_words.pop()
    while len(name_words) > 1 and (name_words[0] in _PADDING or name_words[0].isdigit()):
        name_words.pop(0)
    if not name_words:
        return Subject.UNKNOWN
    if HAN.search(name_words[-1]):
        ends = [(m.end(), -m.start(), s) for s, p in _HAN for m in p.finditer(name_words[-1])]
        return max(ends, key=lambda end: end[:2])[2] if ends else Subject.UNKNOWN
    if (subject := _head(name_words[-1])) is not None:
        return subject
    before = (
        _head(name_words[-2]) if len(name_words) > 1 else None
    )  # loan_application, but not customer_note
    return before if before in _STRONG else Subject.UNKNOWN


_STRONG = {Subject.ACCOUNT, Subject.HEALTH, Subject.WORK, Subject.ORGANIZATION}


def _head(word: str) -> Subject | None:
    """Return the kind of content that the last meaningful word of a table name indicates.

    Return None if the word indicates no kind. The word may consist of pinyin initials. For example,
    hzjbxx combines hz (patient) and jbxx (basic information); only hz decides.
    """
    subject = next((_HEADS[singular] for singular in _singulars(word) if singular in _HEADS), None)
    if subject is None and (pinyin := _PINYIN_TABLE.fullmatch(word)):
        return _HEADS.get(pinyin[1])
    return Subject.THING if subject is None and _PINYIN_LOOKUP.fullmatch(word) else subject


def is_line(table: str) -> bool:
    """Judge by the name of a table whether its rows are items of another table's records.

    An example is ``order_items``, whose rows are the items of orders.
    """
    name_words = words(table)
    return len(name_words) > 1 and name_words[-1] in _LINES


def person_word(name_words: tuple[str, ...]) -> Subject | None:
    """Return the kind of person that the last known noun in a name denotes.

    Return None if this noun denotes no person, or if the name contains no known noun.

    Args:
        name_words: words of the name, as returned by `words`.
    """
    for word in reversed(name_words):
        subject = next(
            (_HEADS[singular] for singular in _singulars(word) if singular in _HEADS), None
        )
        if subject is not None:
            return subject if subject.is_person else None
    return None


def _singulars(word: str) -> list[str]:
    """Return a word, followed by its possible singular forms.

    Args:
        word: word of a table name or column name, in lower case and in any language.
    """
    candidates = [word]
    if word.endswith("ies"):
        candidates.append(word[:-3] + "y")
    if word.endswith(("ses", "xes", "ches", "shes")):
        candidates.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        candidates.append(word[:-1])
    if word.endswith("en"):  # German: Kunden, Bestellungen
        candidates += [word[:-1], word[:-2]]
    return candidates
