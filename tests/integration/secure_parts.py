"""Certificates, a registry that wants a password over TLS, and a broker and a server that know their users."""

from __future__ import annotations

import base64
import datetime
import http.client
import ipaddress
import os
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.embedded import UNPRIVILEGED, Kafka, Postgres, free_port


class Authority:
    """Issues certificates into a folder: `<name>.pem`, `<name>.key`, and `ca.pem`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA in {folder.name}")])
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self._sign(self._name, self._key, True))

    def issue(self, name: str, password: str = "") -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 with this common name, and its key, encrypted if there is a password."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(self._sign(subject, key, False))
        locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        pem = serialization.Encoding.PEM
        private.touch(0o600)
        private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked))
        return certificate, private

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), True)
        )
        if not authority:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Gate:
    """HTTPS with basic authentication in front of a registry."""

    def __init__(self, behind: str, user_info: str, certificate: tuple[Path, Path]) -> None:
        parts = urlsplit(behind)
        expected = "Basic " + base64.b64encode(user_info.encode()).decode()

        class Request(BaseHTTPRequestHandler):
            def _pass(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                if self.headers.get("Authorization") != expected:
                    self._answer(401, b'{"error_code": 401, "message": "who are you?"}')
                    return
                kind = self.headers.get("Content-Type", "application/json")
                connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
                connection.request(self.command, parts.path + self.path, body, {"Content-Type": kind})
                answer = connection.getresponse()
                self._answer(answer.status, answer.read())
                connection.close()

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = _pass  # noqa: N815  the base class's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Does not log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class SecureKafka(Kafka):
    """The broker with users (SASL over TLS) and rights. Its plain listener is the administrator's."""

    def __init__(self, folder: Path, certificate: tuple[Path, Path]) -> None:
        self.secure_port = free_port()
        keystore = certificate[0].with_suffix(".keystore.pem")
        keystore.write_bytes(certificate[1].read_bytes() + certificate[0].read_bytes())
        settings = {
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL",
            "listener.name.secure.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.secure.ssl.keystore.type": "PEM",
            "listener.name.secure.ssl.keystore.location": str(keystore),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        super().__init__(folder, settings)
        plain, secure = f"PLAINTEXT://127.0.0.1:{self.port}", f"SECURE://127.0.0.1:{self.secure_port}"
        self.settings["listeners"] = f"{plain},{secure},CONTROLLER://127.0.0.1:{self.controller_port}"
        self.settings["advertised.listeners"] = f"{plain},{secure}"

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def add_user(self, name: str, password: str) -> None:
        """Adds a user for SCRAM-SHA-512."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = UserScramCredentialUpsertion(name, info, password.encode())
        admin = self._admin()
        for future in admin.alter_user_scram_credentials([wanted]).values():
            future.result(10)

    def allow(self, commands: str) -> None:
        """Does what kafka-acls.sh would for each of the commands."""
        for command in re.findall(r"kafka-acls\.sh [^&\n]*", commands):
            self._allow(command)

    def _allow(self, command: str) -> None:
        found = re.search(r"--(topic|transactional-id) (\S+)", command)
        principal = re.search(r"--allow-principal (\S+)", command)
        assert found, command
        assert principal, command
        kind = ResourceType.TOPIC if found[1] == "topic" else ResourceType.TRANSACTIONAL_ID
        pattern = ResourcePatternType.PREFIXED if " prefixed" in command else ResourcePatternType.LITERAL
        admin = self._admin()
        for operation in re.findall(r"--operation (\w+)", command):
            what = AclOperation[operation.upper()]
            acl = AclBinding(kind, found[2], pattern, principal[1], "*", what, AclPermissionType.ALLOW)
            for future in admin.create_acls([acl]).values():
                future.result(10)


def secure_postgres(folder: Path, version: int, authority: Authority) -> Postgres:
    """A server that only lets in `postgres` without TLS, a password and a certificate of the authority."""
    certificate, key = authority.issue(f"server-{version}")
    rules = authority.folder / "pg_hba.conf"
    rules.write_text(
        "host all postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n"
    )
    if os.geteuid() == 0:
        os.chown(key, UNPRIVILEGED, UNPRIVILEGED)
    settings = {"fsync": "off", "ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
    return Postgres(folder, version, settings | {"ssl_ca_file": str(authority.ca), "hba_file": str(rules)})
