"""docs/notices.md: every key, finding, cause and setting is there, with the default of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from include.cli import notices as command
from include.notify import notice
from include.policy.rules import NoticeRules
from include.services.robot import Kind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "notices.md").read_text(encoding="utf-8")


def test_every_key_of_notices_yaml_is_explained() -> None:
    """In its table, with the default."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE, re.M))
    rules = NoticeRules()
    assert set(NoticeRules.model_fields) <= set(rows)
    assert rows["languages"] == f"`[{', '.join(rules.languages)}]`"
    assert rows["workdays_only"] == f"`{str(rules.workdays_only).lower()}`"
    assert rows["retry_after"] == f"`[{', '.join(one.text for one in rules.retry_after)}]`"
    assert rows["give_up_after"] == f"`{rules.give_up_after.text}`"
    assert rows["in_doubt"] == f"`mail: {rules.in_doubt.mail}`, `robot: {rules.in_doubt.robot}`"
    for kind in get_args(get_args(NoticeRules.model_fields["may_opt_out"].annotation)[0]):
        assert f"`{kind}`" in PAGE


def test_every_finding_is_explained() -> None:
    """What to do about each."""
    code = (ROOT / "include" / "notify" / "sending.py").read_text(encoding="utf-8")
    found = set(re.findall(r'^ +"(notices\.\w+)",$', code, re.M))
    assert len(found) == 8
    assert [one for one in found if f"`{one}`" not in PAGE] == []


@pytest.mark.parametrize("file", ["mail", "robot"])
def test_every_setting_of_a_connection_is_explained(file: str) -> None:
    """Each extra that is read stands as code on the page."""
    code = (ROOT / "include" / "services" / f"{file}.py").read_text(encoding="utf-8")
    read = set(re.findall(r'spec\.text\("(\w+)"\)|_(?:on|seconds)\(spec, "(\w+)"', code))
    wanted = {one for pair in read for one in pair if one}
    assert wanted
    assert [one for one in wanted if f"`{one}`" not in PAGE] == []
    assert all(f"`{one}`" in PAGE for one in get_args(Kind))


def test_every_cause_has_words() -> None:
    """People never read a code alone."""
    causes = [
        value
        for name, value in vars(notice).items()
        if name.isupper()
        and name[0] != "_"
        and isinstance(value, str)
        and value not in ("refused", "not_written")
    ]
    assert len(causes) >= 8
    for one in causes:
        assert notice.explained(one).text != "{cause}", one
    assert notice.explained("refused 550 5.1.1").values == {"code": "550 5.1.1"}
    assert notice.explained("left the company").values == {"cause": "left the company"}


def test_the_commands_of_the_page_exist() -> None:
    """As they are typed there."""
    known = {one.name for one in command.app.registered_commands}
    named = set(re.findall(r"^\./parcelseal notices ([a-z-]+)", PAGE, re.M))
    assert named == known
