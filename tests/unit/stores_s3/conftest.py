"""Answers that the stub gives, and certificates of every kind."""

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key; issues others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def server_context(self, directory: Path, *chain: "Certificate") -> ssl.SSLContext:
        """What a server presents: this certificate, then `chain`."""
        path = directory / "server.pem"
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_text(key.decode() + self.pem + "".join(one.pem for one in chain))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def issue(name, *, by=None, is_authority=False, address="127.0.0.1", age=ONE_DAY, life=10 * ONE_DAY) -> Certificate:
    """A certificate for `address`, signed by `by` or by itself, valid from `age` ago for `life`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = dt.datetime.now(dt.UTC) - age
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + life)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if not is_authority:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return Certificate(builder.sign((by.key if by else key), hashes.SHA256()), key)


@pytest.fixture
def without_pauses(monkeypatch):
    """s3fs rests 0.1 s after a failure, even where it does not try again; tests of what failures mean skip that."""
    monkeypatch.setattr("s3fs.core.S3_RETRYABLE_ERRORS", ())


@pytest.fixture(scope="session")
def authority() -> Certificate:
    return issue("authority", is_authority=True)


@pytest.fixture(scope="session")
def new_certificate():
    """The `issue` function above."""
    return issue


@pytest.fixture
def s3_error(reply):
    """An error answer as S3 sends it: `s3_error(404, "NoSuchKey")`; RGW leaves the message out."""

    def make(status, code, *, message="a message", headers=None, more=""):
        text = f"<Message>{message}</Message>" if message is not None else ""
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code>{text}{more}<RequestId>1</RequestId></Error>'
        return reply(status, {"Content-Type": "application/xml"} | (headers or {}), body.encode())

    return make


@pytest.fixture
def s3_page(reply):
    """A page of a listing: `s3_page(["a", "b"], token="next")`; keys are sent as they stand."""

    def make(keys, *, token="", is_truncated=None, encoding="url"):
        entries = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>0</Size></Contents>"
            for key in keys
        )
        cut = bool(token) if is_truncated is None else is_truncated
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        body = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<EncodingType>{encoding}</EncodingType><IsTruncated>{str(cut).lower()}</IsTruncated>{more}{entries}"
            "</ListBucketResult>"
        )
        return reply(200, {"Content-Type": "application/xml"}, body.encode())

    return make
