"""Test mail over SMTP: the delivery status, which depends on where the delivery failed."""

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
from include.services.delivery_status import DeliveryStatus, Reply
from include.services.errors import ServiceError, UsageError
from include.services.mail import MailServer, MailSession
from tests.support.smtp import DROP, Rule, Smtp, free_port

MAIL = b"Subject: one\r\nMessage-ID: <1@courier.example>\r\n\r\n.a line with a dot\r\n"


@pytest.fixture
def server() -> Iterator[Smtp]:
    with Smtp() as made:
        yield made


def spec(port: int | None, **extra: object) -> ConnectionSpec:
    settings = {
        "disable_ssl": True,
        "disable_tls": True,
        "from_email": "Seal <seal@courier.example>",
    }
    return ConnectionSpec("mail", "smtp", "127.0.0.1", port, extra=settings | extra)


def session(server: Smtp, **extra: object) -> MailSession:
    return MailServer.from_connection(spec(server.port, **{"timeout": 20} | extra)).open()


def only(phase: str, answer: str) -> Rule:
    """Return a rule with which the mail server gives a certain reply in a phase of the delivery.

    The rule applies to recipients whose address begins with "bad". Other replies stay as usual.

    Args:
        phase: phase of the delivery.
        answer: reply of the server.
    """
    return lambda current_phase, address: (
        answer if (current_phase, address[:3]) == (phase, "bad") else None
    )


def test_several_mails_are_sent_in_a_single_smtp_session(server: Smtp) -> None:
    """A line of a mail that begins with a dot arrives unchanged."""
    line = session(server)
    replies = [line.send(f"e{number}@courier.example", MAIL) for number in range(3)]
    line.close()
    assert replies == [Reply(DeliveryStatus.ACCEPTED, "250 2.0.0")] * 3
    assert server.sessions == 1
    assert [mail.recipient for mail in server.taken] == [f"e{n}@courier.example" for n in range(3)]
    assert server.taken[0].content == MAIL


@pytest.mark.parametrize(
    ("phase", "answer", "reply"),
    [
        (
            "RCPT",
            "550 5.1.1 bad@courier.example is unknown",
            Reply(DeliveryStatus.REFUSED, "550 5.1.1"),
        ),
        ("RCPT", "553 no", Reply(DeliveryStatus.REFUSED, "553")),
        ("RCPT", "451 4.7.1 greylisted", Reply(DeliveryStatus.DEFERRED, "451 4.7.1")),
        ("RCPT", "450 later", Reply(DeliveryStatus.DEFERRED, "450")),
        ("RCPT", "552 full", Reply(DeliveryStatus.DEFERRED, "552")),
        ("RCPT", "421 4.3.2 shutting down", Reply(DeliveryStatus.DEFERRED, "421 4.3.2")),
        ("RCPT", DROP, Reply(DeliveryStatus.DEFERRED)),
        ("RCPT", "554 5.7.1 Relay access denied", Reply(DeliveryStatus.DEFERRED, "554 5.7.1")),
        ("DATA", "550 5.7.26 DMARC", Reply(DeliveryStatus.DEFERRED, "550 5.7.26")),
        ("DATA", "554 5.6.0 broken", Reply(DeliveryStatus.REFUSED, "554 5.6.0")),
        ("DATA", "452 4.3.1 no room", Reply(DeliveryStatus.DEFERRED, "452 4.3.1")),
        ("DATA", "421 busy", Reply(DeliveryStatus.DEFERRED, "421")),
        ("DATA", DROP, Reply(DeliveryStatus.IN_DOUBT)),
    ],
)
def test_mails_to_other_recipients_are_accepted_if_mail_to_a_recipient_fails(
    server: Smtp, phase: str, answer: str, reply: Reply
) -> None:
    """Later mails are sent in the same session or in a new session.

    The returned reply does not contain the text of the server.
    """
    server.rule = only(phase, answer)
    line = session(server)
    assert line.send("first@courier.example", MAIL).status is DeliveryStatus.ACCEPTED
    assert line.send("bad@courier.example", MAIL) == reply
    assert line.send("last@courier.example", MAIL).status is DeliveryStatus.ACCEPTED
    line.close()


@pytest.mark.parametrize("code", ["530 5.7.0", "503"])
def test_send_returns_status_unavailable_if_mail_server_requires_login(
    server: Smtp, code: str
) -> None:
    """The server would refuse all mails, so its status is ``unavailable``."""
    server.rule = lambda phase, _: f"{code} log in first" if phase == "RCPT" else None
    line = session(server)
    assert line.send("e1@courier.example", MAIL) == Reply(DeliveryStatus.UNAVAILABLE, code)
    line.close()


def test_send_returns_status_unavailable_if_mail_server_refuses_the_sender(server: Smtp) -> None:
    """The reply has the codes of the server, and no recipient counts as undeliverable."""
    server.rule = lambda phase, _: "550 5.7.1 sender" if phase == "MAIL" else None
    line = session(server)
    assert line.ready().status is DeliveryStatus.ACCEPTED
    assert line.send("e1@courier.example", MAIL) == Reply(DeliveryStatus.UNAVAILABLE, "550 5.7.1")
    line.close()


def test_send_returns_status_unavailable_if_mail_server_is_unreachable() -> None:
    """No mail was sent, and the session works again when the server is reachable."""
    port = free_port()
    line = MailServer.from_connection(spec(port, timeout=20)).open()
    assert line.ready() == Reply(DeliveryStatus.UNAVAILABLE)
    assert line.send("e1@courier.example", MAIL) == Reply(DeliveryStatus.UNAVAILABLE)
    with Smtp(port=port) as server:
        assert line.send("e1@courier.example", MAIL).status is DeliveryStatus.ACCEPTED
        line.close()
        assert len(server.taken) == 1


def test_mail_session_that_the_server_ended_is_opened_again_for_the_next_mail(server: Smtp) -> None:
    """The session ended between two mails, so no delivery is in doubt."""
    line = session(server)
    assert line.send("e1@courier.example", MAIL).status is DeliveryStatus.ACCEPTED
    server.stop()
    server.start()
    assert line.send("e2@courier.example", MAIL).status is DeliveryStatus.ACCEPTED
    line.close()
    assert len(server.taken) == 2


def test_delivery_status_is_in_doubt_if_mail_server_replies_too_late(server: Smtp) -> None:
    """The server has received the mail and may still deliver it."""
    server.slow = 1.5
    line = session(server, answer_timeout=1)
    assert line.send("e1@courier.example", MAIL) == Reply(DeliveryStatus.IN_DOUBT)
    line.close()


@pytest.mark.parametrize("utf8", [False, True])
def test_mail_to_non_ascii_address_is_refused_if_server_lacks_smtputf8(utf8: bool) -> None:
    """If the server lacks SMTPUTF8, the mail is refused before it is sent."""
    with Smtp(utf8=utf8) as server:
        line = session(server)
        reply = line.send("张伟@courier.example", MAIL)
        assert reply.status is (DeliveryStatus.ACCEPTED if utf8 else DeliveryStatus.REFUSED)
        assert line.send("e1@courier.example", MAIL).status is DeliveryStatus.ACCEPTED
        line.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """Return a TLS context for 127.0.0.1 and the file of its self-signed certificate."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)  # noqa: TID251 - a certificate for now
    certificate = (
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
    pem = certificate.public_bytes(serialization.Encoding.PEM)
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
def test_mail_is_sent_only_to_server_with_trusted_certificate(
    certificate: tuple[ssl.SSLContext, Path], implicit: bool, trusted: bool
) -> None:
    """No password is sent to a server whose certificate authority is unknown."""
    context, authority = certificate
    with Smtp(certificate=context, implicit_tls=implicit, login=None) as server:
        extra = {"disable_ssl": not implicit, "disable_tls": False}
        if trusted:
            extra["verify"] = str(authority)
        line = session(server, **extra)
        reply = line.send("e1@courier.example", MAIL)
        line.close()
        assert reply.status is (DeliveryStatus.ACCEPTED if trusted else DeliveryStatus.UNAVAILABLE)
        assert len(server.taken) == trusted


def test_no_mail_is_sent_if_server_does_not_offer_starttls(server: Smtp) -> None:
    """An attacker may have removed STARTTLS from the server's greeting."""
    line = session(server, disable_tls=False)
    assert line.send("e1@courier.example", MAIL) == Reply(DeliveryStatus.UNAVAILABLE)
    assert server.read == []


@pytest.mark.parametrize("password", ["sesame", "wrong"])
def test_mail_is_accepted_only_with_correct_login(
    certificate: tuple[ssl.SSLContext, Path], password: str
) -> None:
    """If the login is wrong, the server is unavailable, and the reply has the server's code."""
    context, authority = certificate
    with Smtp(certificate=context, login=("seal", "sesame")) as server:
        connection_spec = spec(server.port, disable_tls=False, verify=str(authority))
        connection_spec = ConnectionSpec(
            "mail",
            "smtp",
            connection_spec.host,
            connection_spec.port,
            "seal",
            password,
            "",
            connection_spec.extra,
        )
        line = MailServer.from_connection(connection_spec).open()
        reply = line.send("e1@courier.example", MAIL)
        line.close()
    assert reply.status is (
        DeliveryStatus.ACCEPTED if password == "sesame" else DeliveryStatus.UNAVAILABLE
    )
    assert password == "sesame" or reply.code.startswith("535")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"conn_type": "http"}, "cannot send mail"),
        ({"host": ""}, "has no host"),
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
def test_mail_connection_with_invalid_or_insecure_setting_raises_usage_error(
    changed: dict[str, object], why: str
) -> None:
    """The error names the connection and the faulty setting."""
    of_its_own = {"conn_type": "smtp", "host": "mail.example"} | changed
    connection_spec = ConnectionSpec(
        "mail",
        str(of_its_own.pop("conn_type")),
        str(of_its_own.pop("host")),
        extra={"from_email": "a@b"} | of_its_own,
    )
    with pytest.raises(UsageError, match=why):
        MailServer.from_connection(connection_spec)


def test_missing_certificate_authority_file_raises_service_error(server: Smtp) -> None:
    """The configuration is at fault, not the server."""
    line = session(server, disable_tls=False, verify="/none.pem")
    with pytest.raises(ServiceError, match="authority"):
        line.ready()
    assert server.sessions == 0


@pytest.mark.parametrize(
    ("extra", "security", "port"),
    [({}, "tls", 465), ({"disable_ssl": "true"}, "starttls", 587)],
)
def test_default_mail_port_is_465_with_tls_and_587_with_starttls(
    extra: dict[str, str], security: str, port: int
) -> None:
    """TLS is used from the first byte, except if ``disable_ssl`` of Airflow's connection is set."""
    connection_spec = ConnectionSpec(
        "mail", "smtp", "mail.example", extra={"from_email": "a@b"} | extra
    )
    mail_server = MailServer.from_connection(connection_spec)
    assert (mail_server.security, mail_server.port) == (security, port)
    assert "password" not in repr(mail_server)
