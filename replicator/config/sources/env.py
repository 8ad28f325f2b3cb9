"""The environment as a source: mappings from the settings, the bucket's words from variables.

A claim's ConfigMap and Secret name their keys so that `envFrom` is all a sidecar needs: with `prefix: OBC_` they are
the in-cluster claim, without prefix or with EXTERNAL_ external storage. `<WORD>_FILE` reads a word from a file, and
such files are looked at again, because credentials rotate.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType

from replicator.config.documents import read_text, stamps
from replicator.config.settings import Settings
from replicator.config.sources.follow import POLL_S, SETTLE_S, Snapshot, follow
from replicator.config.storage import BUCKET_WORDS, Scheme, Words, choose
from replicator.config.targets import WorkloadPaths, build, served
from replicator.errors import ConfigError
from replicator.model import Storage, Target
from replicator.observe.standing import Report

_CLAIM, _EXTERNAL, _PLAIN = "OBC_", "EXTERNAL_", ""

PLACES = (
    "environment OBC_BUCKET_NAME, OBC_BUCKET_HOST, ... (in-cluster claim)",
    "environment BUCKET_NAME or EXTERNAL_BUCKET_NAME, ... (external storage)",
)
"""Where the environment may hold a bucket, for people."""

_DEFAULT_WORKLOAD = "workload"


class EnvSource:
    """One workload, described by settings and environment."""

    heartbeat_s = 0.0

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        origins: Mapping[str, str] = MappingProxyType({}),
        poll_s: float = POLL_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._poll_s, self._settle_s = poll_s, settle_s
        self._paths = WorkloadPaths(
            workload=settings.workload or _DEFAULT_WORKLOAD,
            egress=settings.egress,
            ingress=settings.ingress,
            egress_where=origins.get("egress", "environment REPLICATOR_EGRESS"),
            ingress_where=origins.get("ingress", "environment REPLICATOR_INGRESS"),
        )

    def read(self) -> tuple[Target, ...]:
        """The targets, with the words as they are now. Raises ConfigError."""
        if not self._paths.egress and not self._paths.ingress:
            fix = "Set REPLICATOR_EGRESS=directory=prefix or REPLICATOR_INGRESS=prefix=directory"
            raise ConfigError(where="environment REPLICATOR_EGRESS", problem="nothing is mapped", fix=fix)
        storage = environment_storage(self._environ, scheme=self._settings.s3_scheme)
        return build(served([self._paths], self._settings), storage=storage, settings=self._settings)

    async def changes(self) -> AsyncIterator[Snapshot]:
        """The first snapshot at once, then one whenever a word in a file has changed."""
        files = word_files(self._environ)
        async for snapshot in follow(self.read, lambda: stamps(files), poll_s=self._poll_s, settle_s=self._settle_s):
            yield snapshot
            if not files:
                # An environment itself never changes: nothing to wake up for.
                await asyncio.Event().wait()

    async def tell(self, report: Report) -> None:
        """Nobody is told."""


def environment_storage(environ: Mapping[str, str], *, scheme: Scheme, looked_at: tuple[str, ...] = ()) -> Storage:
    """The bucket that the environment describes. `looked_at` names places that were empty before, for the error."""
    return choose(
        claim=lambda: _words(environ, _CLAIM),
        # All words from one prefix: one's key must never be sent to the other's endpoint.
        external=lambda: _words(environ, _EXTERNAL) or _words(environ, _PLAIN),
        scheme=scheme,
        looked_at=looked_at + PLACES,
    )


def claim_authority(environ: Mapping[str, str]) -> str:
    """The PEM of the authority that the environment names for in-cluster claims; '' when it names none."""
    words = _words(environ, _CLAIM)
    return words.get("tls.crt") if words else ""


def word_files(environ: Mapping[str, str]) -> list[Path]:
    """The files that the environment's `<WORD>_FILE` variables name."""
    variables = [f"{prefix}{word}_FILE" for prefix in (_CLAIM, _EXTERNAL, _PLAIN) for word in BUCKET_WORDS]
    return [Path(environ[variable]) for variable in variables if environ.get(variable)]


def _words(environ: Mapping[str, str], prefix: str) -> Words | None:
    """The words with that prefix; None when there is none, or all are empty."""
    values: dict[str, str] = {}
    for word in BUCKET_WORDS:
        variable = prefix + word
        file = environ.get(f"{variable}_FILE")
        if file and environ.get(variable):
            problem = f"{variable}_FILE is set as well"
            raise ConfigError(where=f"environment {variable}", problem=problem, fix="Keep one of them")
        if file:
            values[word] = read_text(Path(file))
        elif variable in environ:
            values[word] = environ[variable]
    if not any(value.strip() for value in values.values()):
        return None
    return Words(config=f"environment {prefix}", secret=f"environment {prefix}", values=values)
