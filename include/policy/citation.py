"""Citations of laws and standards in the format that is usual in each language.

Chinese citations follow the drafting rules of the Chinese legislature. Numbers of articles and
items are written in Chinese numerals, as in 第五十一条第（三）项.

A standard is cited by its number, a dash and the year of the edition, as in GB/T 1.1-2020.
"""

from __future__ import annotations

import re
from datetime import date
from itertools import pairwise

_DIGITS = "零一二三四五六七八九"
_STANDARD = re.compile(r"(?P<number>[A-Z]+(/[A-Z]+)? ?[0-9]+(\.[0-9]+)?)(?P<title>.*)", re.ASCII)
_ARTICLE = re.compile(r"(?P<article>[1-9][0-9]{0,2})(\((?P<item>[1-9][0-9]?)\))?", re.ASCII)
_RANGE = re.compile(r"(?P<first>[1-9][0-9]{0,2})-(?P<last>[1-9][0-9]{0,2})", re.ASCII)
_SECTION = re.compile(r"(?P<section>[0-9]+(\.[0-9]+)+)( (?P<item>[a-z])\))?", re.ASCII)
_PART = re.compile(r"part (?P<part>[1-9][0-9]?)", re.ASCII)


def cite(name: str, version: str, article: str, language: str) -> str:
    """Return the citation of an article of a law, regulation or standard.

    Args:
        name: name of the law, regulation or standard in the requested language.
        version: the edition: a year, or the ISO date on which the edition took effect.
        article: article, section or annex: ``51(3)``, ``51(1), 51(2)``, ``38-40``, ``8.7 a)``,
            ``part 3``, ``annex``, or any other text.
        language: ``en`` or ``zh-CN``.
    """
    if language == "zh-CN":
        return _chinese(name, version, article)
    numbers = re.fullmatch(r"[0-9][0-9(), -]*", article)
    return f"{name} ({version}), {'article ' if numbers else ''}{article}"


def chinese_number(number: int) -> str:
    """Return a number from 1 to 999 in Chinese numerals, such as 五十一 or 一百零三.

    Raises:
        ValueError: the number is out of range.
    """
    if not 1 <= number <= 999:
        raise ValueError(f"{number} is not between 1 and 999")
    hundreds, rest = divmod(number, 100)
    tens, units = divmod(rest, 10)
    text = f"{_DIGITS[hundreds]}百" if hundreds else ""
    if tens:
        text += "十" if tens == 1 and not hundreds else f"{_DIGITS[tens]}十"
    elif hundreds and units:
        text += _DIGITS[0]
    return text + (_DIGITS[units] if units else "")


def _chinese(name: str, version: str, article: str) -> str:
    standard = _STANDARD.fullmatch(name)
    if not standard or not re.fullmatch(r"[0-9]{4}", version):
        return f"{_chinese_edition(name, version)}{_chinese_article(article)}"
    number, title = standard["number"], standard["title"]
    part = _PART.fullmatch(article)
    if part and number.startswith("GB"):  # a part of a national standard has its own number
        if number.endswith(f".{part['part']}"):
            return f"{number}—{version}{title}"
        if "." not in number and "部分" not in title:
            title = re.sub("》$", f" 第{part['part']}部分》", title)
            return f"{number}.{part['part']}—{version}{title}"
    sections = [section.strip() for section in article.split(",")]
    if title and all(map(_SECTION.fullmatch, sections)):
        return f"{number}—{version}{title}{'、'.join(sections)}"
    return f"{number}—{version}{title}{_chinese_article(article)}"


def _chinese_edition(name: str, version: str) -> str:
    try:
        in_force = date.fromisoformat(version)
    except ValueError:
        return f"{name}（{version}）"
    edition = f"{in_force.year}年{in_force.month}月{in_force.day}日起施行"
    # A name may state the year of the last amendment: 《…法》（2025年修正，2026年1月1日起施行）
    return f"{name[:-1]}，{edition}）" if name.endswith("）") else f"{name}（{edition}）"


def _chinese_article(article: str) -> str:
    texts = [_chinese_part(part.strip()) for part in article.split(",")]
    shown = texts[:1]
    for before, text in pairwise(texts):
        # Items of one article name it once: 第五十一条第（一）项、第（二）项.
        named = before.partition("条")[0] + "条"
        is_item = "项" in before and text.startswith(f"{named}第（")
        shown.append(text.removeprefix(named) if is_item else text)
    return "、".join(shown)


def _chinese_part(part: str) -> str:
    if match := _ARTICLE.fullmatch(part):
        item = f"第（{chinese_number(int(match['item']))}）项" if match["item"] else ""
        return f"第{chinese_number(int(match['article']))}条{item}"
    if match := _RANGE.fullmatch(part):
        first, last = (chinese_number(int(match[end])) for end in ("first", "last"))
        return f"第{first}条至第{last}条"
    if match := _SECTION.fullmatch(part):
        return f"第{match['section']}条" + (f"{match['item']}）项" if match["item"] else "")
    if match := _PART.fullmatch(part):
        return f"第{match['part']}部分"
    return "附件" if part == "annex" else part
