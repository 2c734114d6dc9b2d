"""Tests of the local mail server, which all commands share and the last command stops."""

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

from include.local import mail as mail_module
from include.local.mail import LocalMail
from include.local.profile import LocalProfile
from include.services.delivery_status import DeliveryStatus
from include.services.mail import MailServer

ROOT = Path(__file__).parents[2]
MAIL = b"Subject: =?utf-8?b?5Z+56K6t?=\r\nMessage-ID: <20261126.1@courier.example>\r\n\r\none\r\n"
OTHER_COMMAND = (
    "import sys; from pathlib import Path; from include.local.mail import LocalMail\n"
    "mail = LocalMail(Path(sys.argv[1])); mail.start(); print('up', flush=True)\n"
    "sys.stdin.readline(); mail.stop_if_unused()"
)


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[LocalMail]:
    local_mail = LocalProfile(tmp_path).mail
    yield local_mail
    local_mail.stop_if_unused()


def send(mail: LocalMail, content: bytes = MAIL) -> DeliveryStatus:
    spec = mail.connection()
    assert spec is not None
    line = MailServer.from_connection(spec).open()
    fate = line.send("e1@courier.example", content).status
    line.close()
    return fate


def servers(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in (process.info["cmdline"] or [])
        and "include.local.mail" in process.info["cmdline"]
    ]


def test_mail_server_writes_each_mail_to_its_own_file_with_mode_0600(mail: LocalMail) -> None:
    """File names contain time and Message-ID. A mail that is sent twice becomes two files."""
    assert LocalProfile(mail.folder.parent).connection("mail") is None
    mail.start()
    assert [send(mail), send(mail), send(mail, b"Subject: none\r\n\r\n")] == [
        DeliveryStatus.ACCEPTED
    ] * 3
    first, second, third = mail.mails
    assert first.name.endswith("Z-20261126.1@courier.example.eml")
    assert second.name.endswith("Z-20261126.1@courier.example.eml")
    assert third.name.endswith("Z-without-id.eml")
    assert {path.stat().st_mode & 0o777 for path in mail.mails} == {0o600}
    assert mail.folder.stat().st_mode & 0o777 == 0o700
    parsed = message_from_bytes(first.read_bytes(), policy=default)
    assert parsed["Subject"] == "培训"


@pytest.mark.parametrize("message_id", [b"../../evil", b"a/b", b"\xff\xfe", b"x" * 400, b""])
def test_mail_with_unsafe_path_characters_in_message_id_is_written_into_the_mail_folder(
    mail: LocalMail, message_id: bytes
) -> None:
    """File names contain only safe characters of the Message-ID."""
    mail.start()
    content = b"Message-ID: <" + message_id + b">\r\n\r\none\r\n"
    assert send(mail, content) is DeliveryStatus.ACCEPTED
    (one,) = mail.mails
    assert one.parent == mail.folder


def test_two_commands_use_the_same_mail_server_and_the_last_command_stops_it(
    mail: LocalMail,
) -> None:
    """The server keeps running if the command that started it ends first."""
    command = [sys.executable, "-c", OTHER_COMMAND, str(mail.folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        mail.start()
        assert len(servers(mail.folder)) == 1
        other.communicate("\n")
    assert send(mail) is DeliveryStatus.ACCEPTED
    mail.stop_if_unused()
    assert servers(mail.folder) == []
    assert mail.connection() is None
    mail.stop_if_unused()  # a second call has no effect


def test_mail_server_ends_after_all_commands_that_use_it_were_killed(tmp_path: Path) -> None:
    """Otherwise the server would keep running, because no command is left that stops it."""
    folder = tmp_path / "mail"
    command = [sys.executable, "-c", OTHER_COMMAND, str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        other.kill()
    end = time.monotonic() + 5 * mail_module.USE_CHECK_INTERVAL
    while servers(folder):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert LocalMail(folder).connection() is None


def test_start_creates_a_working_mail_server_after_the_previous_server_was_killed(
    mail: LocalMail,
) -> None:
    """The killed server leaves files with an outdated port and an outdated process id."""
    mail.start()
    (server,) = servers(mail.folder)
    server.kill()
    server.wait()
    assert not mail.is_running()
    mail.start()
    assert send(mail) is DeliveryStatus.ACCEPTED


def test_stop_if_unused_creates_no_files_if_no_server_was_started(tmp_path: Path) -> None:
    """A home folder in which no mail server was started gets no mail folder."""
    LocalProfile(tmp_path).mail.stop_if_unused()
    assert list(tmp_path.iterdir()) == []
