"""The journal's schemas as they were shipped, for tests that meet a journal of an older release."""

import hashlib
from pathlib import Path

import replicator

SHIPPED = {
    "schema.sql": "5e73f218bcd173a7ec557795155416679649020bbe435c08ebd6c728737d800a",
    "schema_2.sql": "51339630614e8ef6a8affcbe9ccef62c10a52a9958a0e4c8f197eb3b62bbeba3",
    "schema_3.sql": "cd59994185d7f8dedb472cf695877de84d81aebfcd19d693531db50cdd5ec992",
}
"""SHA-256 of each script; the nth makes schema n of the one before."""

OLDER = range(1, len(SHIPPED))
"""The schemas that a journal is upgraded from."""

_SCRIPTS = Path(replicator.__file__).parent / "stores/journal"


def changed() -> list[str]:
    """The scripts that are no longer what was shipped, or are new."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _SCRIPTS.glob("*.sql")}
    return sorted(name for name in SHIPPED.keys() | found.keys() if SHIPPED.get(name) != found.get(name))


def script_of(version: int) -> str:
    """What made a fresh journal of this schema."""
    assert not changed(), "a shipped script never changes; of a new one add the digest"
    return "\n".join((_SCRIPTS / name).read_text(encoding="utf-8") for name in list(SHIPPED)[:version])
