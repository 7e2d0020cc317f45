"""A certificate that is made for one run."""

from __future__ import annotations

import hashlib
import ssl
import stat
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from emi_live.web.certificate import make_certificate


def test_a_certificate_is_for_its_names_and_its_key_is_private(tmp_path: Path) -> None:
    public, private, fingerprint = make_certificate(["localhost", "192.168.1.20"], tmp_path)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)  # they belong together
    der = ssl.PEM_cert_to_DER_cert(public.read_text())
    assert hashlib.sha256(der).hexdigest() == fingerprint.replace(":", "").lower()
    extension = x509.load_pem_x509_certificate(public.read_bytes()).extensions
    names = extension.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("192.168.1.20")]
