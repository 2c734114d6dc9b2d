"""Mail over SMTP: what became of each mail, told apart by where the line was cut."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from include.services.connections import ConnectionSpec
from include.services.errors import ServiceError, UsageError
from include.services.fate import Fate, Reply
from include.services.mail import MailServer, MailSession
from tests.support.smtp import DROP, Rule, Smtp, free_port

MAIL = b"Subject: one\r\nMessage-ID: <1@courier.example>\r\n\r\n.a line with a dot\r\n"


@pytest.fixture
def server() -> Iterator[Smtp]:
    with Smtp() as made:
        yield made


def spec(port: int | None, **extra: object) -> ConnectionSpec:
    given = {"disable_ssl": True, "disable_tls": True, "from_email": "Seal <seal@courier.example>"}
    return ConnectionSpec("mail", "smtp", "127.0.0.1", port, extra=given | extra)


def session(server: Smtp, **extra: object) -> MailSession:
    return MailServer.from_connection(spec(server.port, **{"timeout": 20} | extra)).open()


def only(phase: str, answer: str) -> Rule:
    """Answer one command so, all others as usual."""
    return lambda one, address: answer if (one, address[:3]) == (phase, "bad") else None


def test_one_session_sends_many_mails(server: Smtp) -> None:
    """And what is received is what was sent, a line that begins with a dot too."""
    line = session(server)
    replies = [line.send(f"e{number}@courier.example", MAIL) for number in range(3)]
    line.close()
    assert replies == [Reply(Fate.ACCEPTED, "250 2.0.0")] * 3
    assert server.sessions == 1
    assert [one.recipient for one in server.taken] == [f"e{n}@courier.example" for n in range(3)]
    assert server.taken[0].content == MAIL


@pytest.mark.parametrize(
    ("phase", "answer", "reply"),
    [
        ("RCPT", "550 5.1.1 bad@courier.example is unknown", Reply(Fate.REFUSED, "550 5.1.1")),
        ("RCPT", "553 no", Reply(Fate.REFUSED, "553")),
        ("RCPT", "451 4.7.1 greylisted", Reply(Fate.DEFERRED, "451 4.7.1")),
        ("RCPT", "450 later", Reply(Fate.DEFERRED, "450")),
        ("RCPT", "552 full", Reply(Fate.DEFERRED, "552")),
        ("RCPT", "421 4.3.2 shutting down", Reply(Fate.DEFERRED, "421 4.3.2")),
        ("RCPT", DROP, Reply(Fate.DEFERRED)),
        ("RCPT", "554 5.7.1 Relay access denied", Reply(Fate.DEFERRED, "554 5.7.1")),
        ("DATA", "550 5.7.26 DMARC", Reply(Fate.DEFERRED, "550 5.7.26")),
        ("DATA", "554 5.6.0 broken", Reply(Fate.REFUSED, "554 5.6.0")),
        ("DATA", "452 4.3.1 no room", Reply(Fate.DEFERRED, "452 4.3.1")),
        ("DATA", "421 busy", Reply(Fate.DEFERRED, "421")),
        ("DATA", DROP, Reply(Fate.IN_DOUBT)),
    ],
)
def test_one_recipients_trouble_is_not_the_others(
    server: Smtp, phase: str, answer: str, reply: Reply
) -> None:
    """The next mail is sent, by the same session or another; no word of the server is kept."""
    server.rule = only(phase, answer)
    line = session(server)
    assert line.send("first@courier.example", MAIL).fate is Fate.ACCEPTED
    assert line.send("bad@courier.example", MAIL) == reply
    assert line.send("last@courier.example", MAIL).fate is Fate.ACCEPTED
    line.close()


@pytest.mark.parametrize("code", ["530 5.7.0", "503"])
def test_what_is_wrong_with_us_is_not_a_refusal_of_the_recipient(server: Smtp, code: str) -> None:
    """All mails would fare the same: the server cannot be used."""
    server.rule = lambda phase, _: f"{code} log in first" if phase == "RCPT" else None
    line = session(server)
    assert line.send("e1@courier.example", MAIL) == Reply(Fate.UNAVAILABLE, code)
    line.close()


def test_a_refused_sender_makes_the_server_unusable(server: Smtp) -> None:
    """With its codes, and without calling any recipient undeliverable."""
    server.rule = lambda phase, _: "550 5.7.1 sender" if phase == "MAIL" else None
    line = session(server)
    assert line.ready().fate is Fate.ACCEPTED
    assert line.send("e1@courier.example", MAIL) == Reply(Fate.UNAVAILABLE, "550 5.7.1")
    line.close()


def test_a_server_that_is_down_is_unavailable() -> None:
    """Nothing was sent, and the session can be used once it is back."""
    port = free_port()
    line = MailServer.from_connection(spec(port, timeout=20)).open()
    assert line.ready() == Reply(Fate.UNAVAILABLE)
    assert line.send("e1@courier.example", MAIL) == Reply(Fate.UNAVAILABLE)
    with Smtp(port=port) as server:
        assert line.send("e1@courier.example", MAIL).fate is Fate.ACCEPTED
        line.close()
        assert len(server.taken) == 1


def test_a_session_that_the_server_ended_is_opened_again(server: Smtp) -> None:
    """Between two mails: nothing was handed over, so nothing is in doubt."""
    line = session(server)
    assert line.send("e1@courier.example", MAIL).fate is Fate.ACCEPTED
    server.stop()
    server.start()
    assert line.send("e2@courier.example", MAIL).fate is Fate.ACCEPTED
    line.close()
    assert len(server.taken) == 2


def test_a_server_that_is_too_slow_with_its_answer_leaves_a_doubt(server: Smtp) -> None:
    """It has the mail, and may take it after all."""
    server.slow = 1.5
    line = session(server, answer_timeout=1)
    assert line.send("e1@courier.example", MAIL) == Reply(Fate.IN_DOUBT)
    line.close()


@pytest.mark.parametrize("utf8", [False, True])
def test_addresses_in_other_letters_need_a_server_that_takes_them(utf8: bool) -> None:
    """Without SMTPUTF8 they are refused before they leave."""
    with Smtp(utf8=utf8) as server:
        line = session(server)
        reply = line.send("张伟@courier.example", MAIL)
        assert reply.fate is (Fate.ACCEPTED if utf8 else Fate.REFUSED)
        assert line.send("e1@courier.example", MAIL).fate is Fate.ACCEPTED
        line.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A certificate of 127.0.0.1 and the file of its authority, which is itself."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)  # noqa: TID251 - a certificate for now
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "cert.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, folder / "cert.pem"


@pytest.mark.parametrize("implicit", [True, False], ids=["tls", "starttls"])
@pytest.mark.parametrize("trusted", [True, False])
def test_servers_are_verified(
    certificate: tuple[ssl.SSLContext, Path], implicit: bool, trusted: bool
) -> None:
    """One whose authority nobody knows is not spoken to, and no password goes there."""
    context, authority = certificate
    with Smtp(certificate=context, implicit_tls=implicit, login=None) as server:
        extra = {"disable_ssl": not implicit, "disable_tls": False}
        if trusted:
            extra["verify"] = str(authority)
        line = session(server, **extra)
        reply = line.send("e1@courier.example", MAIL)
        line.close()
        assert reply.fate is (Fate.ACCEPTED if trusted else Fate.UNAVAILABLE)
        assert len(server.taken) == trusted


def test_a_server_without_starttls_gets_nothing(server: Smtp) -> None:
    """Somebody may have taken STARTTLS out of its greeting."""
    line = session(server, disable_tls=False)
    assert line.send("e1@courier.example", MAIL) == Reply(Fate.UNAVAILABLE)
    assert server.read == []


@pytest.mark.parametrize("password", ["sesame", "wrong"])
def test_a_login_is_used(certificate: tuple[ssl.SSLContext, Path], password: str) -> None:
    """A wrong one makes the server unusable; the reason is in the code."""
    context, authority = certificate
    with Smtp(certificate=context, login=("seal", "sesame")) as server:
        given = spec(server.port, disable_tls=False, verify=str(authority))
        given = ConnectionSpec(
            "mail", "smtp", given.host, given.port, "seal", password, "", given.extra
        )
        line = MailServer.from_connection(given).open()
        reply = line.send("e1@courier.example", MAIL)
        line.close()
    assert reply.fate is (Fate.ACCEPTED if password == "sesame" else Fate.UNAVAILABLE)
    assert password == "sesame" or reply.code.startswith("535")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"conn_type": "http"}, "sends no mail"),
        ({"host": ""}, "names no host"),
        ({"from_email": ""}, "from_email"),
        ({"from_email": "nobody"}, "from_email"),
        ({"from_email": "a@b\r\nBcc: c"}, "from_email"),
        ({"reply_to": "nobody"}, "reply_to"),
        ({"timeout": "soon"}, "timeout"),
        ({"answer_timeout": 601}, "answer_timeout"),
        ({"timeout": -1}, "timeout"),
        ({"disable_ssl": True, "disable_tls": True}, "unencrypted"),
        ({"ssl_context": "none"}, "would not be verified"),
        ({"verify": False}, "would not be verified"),
    ],
)
def test_faulty_connections_are_wrong_usage(changed: dict[str, object], why: str) -> None:
    """By the connection's name and what to set."""
    of_its_own = {"conn_type": "smtp", "host": "mail.example"} | changed
    given = ConnectionSpec(
        "mail",
        str(of_its_own.pop("conn_type")),
        str(of_its_own.pop("host")),
        extra={"from_email": "a@b"} | of_its_own,
    )
    with pytest.raises(UsageError, match=why):
        MailServer.from_connection(given)


def test_a_missing_authority_is_told(server: Smtp) -> None:
    """It is a slip in the configuration, and no trouble of the server."""
    line = session(server, disable_tls=False, verify="/none.pem")
    with pytest.raises(ServiceError, match="authority"):
        line.ready()
    assert server.sessions == 0


@pytest.mark.parametrize(
    ("extra", "security", "port"),
    [({}, "tls", 465), ({"disable_ssl": "true"}, "starttls", 587)],
)
def test_ports_follow_from_the_security(extra: dict[str, str], security: str, port: int) -> None:
    """TLS from the first byte unless Airflow's own switch says otherwise."""
    given = ConnectionSpec("mail", "smtp", "mail.example", extra={"from_email": "a@b"} | extra)
    made = MailServer.from_connection(given)
    assert (made.security, made.port) == (security, port)
    assert "password" not in repr(made)
