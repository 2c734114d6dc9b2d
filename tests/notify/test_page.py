"""The documentation of notifications explains every key, finding, command and setting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from include.cli import notices as command
from include.notify import notification
from include.policy.rules import NotificationRules
from include.services.robot import Kind

ROOT = Path(__file__).parents[2]
PAGES = ("explanation/notices.md", "how-to/fix-undelivered-notifications.md")
PAGE = "\n".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES)


def test_documentation_explains_every_key_of_notices_yaml() -> None:
    page = (ROOT / "docs" / "reference" / "policy-pack" / "notices.md").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"^\| `([\w.]+)` \| [^|]* \| (.*?) \|", page, re.M))
    rules = NotificationRules()
    assert set(NotificationRules.model_fields) <= set(defaults)
    assert defaults["languages"] == f"`[{', '.join(rules.languages)}]`"
    assert defaults["workdays_only"] == f"`{str(rules.workdays_only).lower()}`"
    assert defaults["retry_after"] == f"`[{', '.join(pause.text for pause in rules.retry_after)}]`"
    assert defaults["give_up_after"] == f"`{rules.give_up_after.text}`"
    assert defaults["in_doubt.mail"] == f"`{rules.in_doubt.mail}`"
    assert defaults["in_doubt.robot"] == f"`{rules.in_doubt.robot}`"
    for kind in get_args(get_args(NotificationRules.model_fields["may_opt_out"].annotation)[0]):
        assert f"`{kind}`" in page


def test_documentation_explains_every_finding_code() -> None:
    code = (ROOT / "include" / "notify" / "sending.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'^ +"(notices\.\w+)",$', code, re.M))
    assert len(codes) == 8
    assert [name for name in codes if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("file", ["mail", "robot"])
def test_documentation_explains_every_connection_setting(file: str) -> None:
    code = (ROOT / "include" / "services" / f"{file}.py").read_text(encoding="utf-8")
    read = set(re.findall(r'spec\.text\("(\w+)"\)|_(?:on|seconds)\(spec, "(\w+)"', code))
    settings = {name for pair in read for name in pair if name}
    assert settings
    assert [name for name in settings if f"`{name}`" not in PAGE] == []
    assert all(f"`{arg}`" in PAGE for arg in get_args(Kind))


def test_every_cause_of_undelivered_notification_has_a_message() -> None:
    causes = [
        value
        for name, value in vars(notification).items()
        if name.isupper()
        and name[0] != "_"
        and isinstance(value, str)
        and value not in ("refused", "not_written")
    ]
    assert len(causes) >= 8
    for cause in causes:
        assert notification.explain_cause(cause).text != "{cause}", cause
    assert notification.explain_cause("refused 550 5.1.1").values == {"code": "550 5.1.1"}
    assert notification.explain_cause("left the company").values == {"cause": "left the company"}


def test_documentation_page_shows_exactly_the_existing_commands_for_notices() -> None:
    commands = {registered_command.name for registered_command in command.app.registered_commands}
    named = set(re.findall(r"^\./parcelseal notices ([a-z-]+)", PAGE, re.M))
    assert named == commands
