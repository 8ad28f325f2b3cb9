"""The types of settings: from the text of a flag, variable or file to a value, or a ValueError in plain words.

Owns: forms and bounds of single values. Never: which settings there are, where they come from, or how they fit
together. YAML's types are not bent: a yes is no number and a number no name, though Python would take them.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr

from replicator.config.bandwidth import Allowance, Timetable
from replicator.config.manifests import DataPath
from replicator.config.shapes import Strict

_MAX_NAME_BYTES = 255
_MAX_MARKER_BYTES = 120
"""A key has 1,024 bytes at most, and a prefix up to 900 of them."""
_MIN_TOKEN_CHARS = 16
"""Nobody guesses it, and the log masks no shorter words than 8."""
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label."""
_LISTEN = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


def _is_number(given: Any) -> Any:
    if isinstance(given, bool):
        raise ValueError("a yes or no stands where a number is needed")  # noqa: TRY004 -- pydantic translates ValueError
    return given


def _lower(given: Any) -> Any:
    return given.lower() if isinstance(given, str) else given


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None


def _none_if_empty(given: Any) -> Any:
    return None if given == "" else given


def _words(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    return _from_json(given) if given.lstrip().startswith("[") else [w.strip() for w in given.split(",") if w.strip()]


def _pairs(given: Any) -> Any:
    if not isinstance(given, str) or given.lstrip().startswith("["):
        return _words(given)
    pairs = []
    for word in _words(given):
        source, equals, target = word.partition("=")
        if not equals or "=" in target:
            raise ValueError("each mapping is source=target; for names with ',' or '=' use a JSON list")
        pairs.append({"source": source.strip(), "target": target.strip()})
    return pairs


def _options(given: Any) -> Any:
    if isinstance(given, str):
        return _from_json(given) if given.strip() else {}
    return given


def _timetable(given: Any) -> Timetable:
    return given if isinstance(given, Timetable) else Timetable.parse(_is_text(given))


def _allowance(given: Any) -> Allowance:
    return given if isinstance(given, Allowance) else Allowance.parse(_is_text(given))


def _is_text(given: Any) -> str:
    if not isinstance(given, str):
        raise ValueError("must be a text")  # noqa: TRY004 -- pydantic translates ValueError
    return given


def _is_absolute_path(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts or path == Path("/") or not str(path).isprintable():
        raise ValueError("must be an absolute path beneath '/', without '..' or control characters")
    return path


def _is_pattern(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a pattern must not be empty or hold control characters")
    return text


def _is_marker_name(text: str) -> str:
    if text and (not text.isprintable() or {"", ".", ".."} & set(text.split("/"))):
        raise ValueError("must be a name beneath the prefix such as _manifest, without empty, '.' or '..' segments")
    if len(text.encode()) > _MAX_MARKER_BYTES:
        raise ValueError(f"must not be longer than {_MAX_MARKER_BYTES} bytes")
    return text


def _is_file_name(text: str) -> str:
    if "/" in text or text in (".", "..") or not text.isprintable() or len(text.encode()) > _MAX_NAME_BYTES:
        raise ValueError("must be the name of a file such as _SUCCESS, without a directory")
    return text


def _is_namespace(text: str) -> str:
    if text and not _NAMESPACE.fullmatch(text):
        raise ValueError("must be the name of a Kubernetes namespace: small letters, digits and '-'")
    return text


def _is_token(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if text and (len(text) < _MIN_TOKEN_CHARS or not text.isascii() or not text.isprintable() or " " in text):
        raise ValueError(f"must be at least {_MIN_TOKEN_CHARS} printable ASCII characters without spaces")
    return secret


def _is_listen_address(text: str) -> str:
    match = _LISTEN.fullmatch(text)
    if text and (match is None or int(match["port"]) > 65535):
        raise ValueError("must be host:port such as 127.0.0.1:9477, or empty")
    return text


def _is_https_url(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc):
        raise ValueError("must be https://host[:port]/path, without user, query or fragment")
    return text


Directory = Annotated[Path, AfterValidator(_is_absolute_path)]
OptionalDirectory = Annotated[Directory | None, BeforeValidator(_none_if_empty)]
PemFile = Annotated[Path, AfterValidator(_is_absolute_path)]
OptionalPemFile = Annotated[PemFile | None, BeforeValidator(_none_if_empty)]
OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty)]
Number = Annotated[float, BeforeValidator(_is_number)]
Count = Annotated[int, BeforeValidator(_is_number)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_is_pattern)], ...], BeforeValidator(_words)]
DataPaths = Annotated[tuple[DataPath, ...], BeforeValidator(_pairs)]
ListenAddress = Annotated[str, AfterValidator(_is_listen_address)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
HttpsUrl = Annotated[str, AfterValidator(_is_https_url)]
Namespace = Annotated[str, AfterValidator(_is_namespace)]
FileName = Annotated[str, AfterValidator(_is_file_name)]
MarkerName = Annotated[str, AfterValidator(_is_marker_name)]
AuditInterval = Annotated[Number, Field(ge=1, le=7 * 86400)]
Token = Annotated[SecretStr, AfterValidator(_is_token)]
IngressPublish = Literal["files", "generation"]
Order = Literal["oldest", "newest", "smallest", "pattern"]
Priority = Annotated[Count, Field(ge=-1000, le=1000)]
TimetableText = Annotated[Timetable, PlainValidator(_timetable)]
AllowanceText = Annotated[Allowance, PlainValidator(_allowance)]


class OptionsPatch(Strict):
    """What one `target_options` pattern changes; a field left out changes nothing."""

    include: Patterns | None = None
    exclude: Patterns | None = None
    hard_links: Literal["refuse", "allow"] | None = None
    open_files: Literal["wait", "snapshot"] | None = None
    restore_deleted: bool | None = None
    ingress_marker: MarkerName | None = None
    ingress_audit_s: AuditInterval | None = None
    ingress_publish: IngressPublish | None = None
    quota_bytes: Annotated[Count, Field(ge=0)] | None = None
    order: Order | None = None
    order_patterns: Patterns | None = None
    priority: Priority | None = None
    egress_barrier: FileName | None = None
    delete_after_upload: bool | None = None


TargetPatches = Annotated[dict[str, OptionsPatch], BeforeValidator(_options)]
