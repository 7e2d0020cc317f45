"""TLS certificates: checking one that is given, and making one for `emi serve --self-signed`.

A self-signed certificate encrypts, so browsers allow the camera. It does not prove whose server this is:
browsers warn, and the user must compare the fingerprint.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from emi_live.errors import ConfigurationError

__all__ = ["DAYS", "check_certificate", "fingerprint_of", "make_certificate"]

DAYS: Final = 30


def make_certificate(names: Sequence[str], folder: Path) -> tuple[Path, Path, str]:
    """Write a key and a certificate for these host names and addresses into a folder.

    Returns:
        The certificate's file, the key's file (only its owner may read it), and the SHA-256 fingerprint.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emi-live, self-signed")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([_name(one) for one in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    return public, private, _fingerprint(certificate)


def fingerprint_of(certificate: Path) -> str:
    """The SHA-256 fingerprint of a PEM file."""
    return _fingerprint(x509.load_pem_x509_certificate(certificate.read_bytes()))


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def check_certificate(certificate: Path, key: Path | None) -> None:
    """Raise ConfigurationError if they are not a certificate and its key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # what the ssl module raises
        raise ConfigurationError(
            f"--certificate {certificate}: {error}; give PEM files that belong together"
        ) from error
