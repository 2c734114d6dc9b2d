"""The local mail server: shared by all commands of a home, gone with the last of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import psutil
import pytest

from include.local import mail as module
from include.local.mail import LocalMail
from include.local.profile import LocalProfile
from include.services.fate import Fate
from include.services.mail import MailServer

ROOT = Path(__file__).parents[2]
MAIL = b"Subject: =?utf-8?b?5Z+56K6t?=\r\nMessage-ID: <20261126.1@courier.example>\r\n\r\none\r\n"
OTHER = (
    "import sys; from pathlib import Path; from include.local.mail import LocalMail\n"
    "mail = LocalMail(Path(sys.argv[1])); mail.start(); print('up', flush=True)\n"
    "sys.stdin.readline(); mail.stop_if_unused()"
)


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[LocalMail]:
    made = LocalProfile(tmp_path).mail
    yield made
    made.stop_if_unused()


def send(mail: LocalMail, content: bytes = MAIL) -> Fate:
    spec = mail.connection()
    assert spec is not None
    line = MailServer.from_connection(spec).open()
    fate = line.send("e1@courier.example", content).fate
    line.close()
    return fate


def servers(folder: Path) -> list[psutil.Process]:
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if str(folder) in (one.info["cmdline"] or [])
        and "include.local.mail" in one.info["cmdline"]
    ]


def test_every_mail_is_a_file_for_its_owner_alone(mail: LocalMail) -> None:
    """Named by moment and Message-ID; a second copy is a second file."""
    assert LocalProfile(mail.folder.parent).connection("mail") is None
    mail.start()
    assert [send(mail), send(mail), send(mail, b"Subject: none\r\n\r\n")] == [Fate.ACCEPTED] * 3
    first, second, third = mail.mails
    assert first.name.endswith("Z-20261126.1@courier.example.eml")
    assert second.name.endswith("Z-20261126.1@courier.example.eml")
    assert third.name.endswith("Z-without-id.eml")
    assert {one.stat().st_mode & 0o777 for one in mail.mails} == {0o600}
    assert mail.folder.stat().st_mode & 0o777 == 0o700
    parsed = message_from_bytes(first.read_bytes(), policy=default)
    assert parsed["Subject"] == "培训"


@pytest.mark.parametrize("given", [b"../../evil", b"a/b", b"\xff\xfe", b"x" * 400, b""])
def test_a_hostile_message_id_names_no_file_elsewhere(mail: LocalMail, given: bytes) -> None:
    """Whatever stands in it."""
    mail.start()
    assert send(mail, b"Message-ID: <" + given + b">\r\n\r\none\r\n") is Fate.ACCEPTED
    (one,) = mail.mails
    assert one.parent == mail.folder


def test_commands_share_one_server_and_the_last_one_ends_it(mail: LocalMail) -> None:
    """Whoever started it."""
    command = [sys.executable, "-c", OTHER, str(mail.folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        mail.start()
        assert len(servers(mail.folder)) == 1
        other.communicate("\n")
    assert send(mail) is Fate.ACCEPTED
    mail.stop_if_unused()
    assert servers(mail.folder) == []
    assert mail.connection() is None
    mail.stop_if_unused()  # twice is once


def test_a_server_whose_commands_were_killed_ends_itself(tmp_path: Path) -> None:
    """Nothing stays behind that nobody can stop."""
    folder = tmp_path / "mail"
    command = [sys.executable, "-c", OTHER, str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        other.kill()
    end = time.monotonic() + 5 * module.LOOK_EVERY
    while servers(folder):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert LocalMail(folder).connection() is None


def test_a_killed_server_is_started_again(mail: LocalMail) -> None:
    """Its port and its number mean nothing any more."""
    mail.start()
    (server,) = servers(mail.folder)
    server.kill()
    server.wait()
    assert not mail.running()
    mail.start()
    assert send(mail) is Fate.ACCEPTED


def test_nothing_is_made_for_the_looking(tmp_path: Path) -> None:
    """A home without mail has no folder for it."""
    LocalProfile(tmp_path).mail.stop_if_unused()
    assert list(tmp_path.iterdir()) == []
