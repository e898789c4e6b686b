"""Certificates for tests, made by an authority of their own that nobody else believes."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Issues certificates; ``client`` is what a client believes them with."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority of these tests")])
        self._own = (
            _builder(self._name, self._name, self._key.public_key(), days=3650)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return self._own.public_bytes(serialization.Encoding.PEM).decode()

    def client(self, *protocols: str) -> ssl.SSLContext:
        """Believes this authority alone, and offers *protocols*."""
        context = ssl.create_default_context(cadata=self.pem)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def issue(self, *names: str, days: float = 90, password: bytes | None = None) -> tuple[bytes, bytes]:
        """A new certificate for *names*, which ends in *days*, and its key; both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A server of these tests")])
        builder = _builder(subject, self._name, key.public_key(), days=days)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
        leaf = builder.sign(self._key, hashes.SHA256())
        protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return (
            leaf.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection),
        )

    def write(self, folder: Path, stem: str, *names: str, days: float = 90) -> tuple[Path, Path]:
        """A new certificate as ``<stem>.pem`` and ``<stem>.key`` in *folder*, as a careful person puts them there."""
        folder.mkdir(exist_ok=True)
        chain, key = folder / f"{stem}.pem", folder / f"{stem}.key"
        pair = self.issue(*names, days=days)
        put(chain, pair[0])
        put(key, pair[1], mode=0o600)
        return chain, key


def put(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file in one step, as another one."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.chmod(mode)
    new.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
    )
