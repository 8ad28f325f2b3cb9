"""A directory of manifests as a source: every *.yaml directly in it, and buckets mounted beneath storage/.

Made for mounted ConfigMaps and Secrets: entries may be links, names that begin with '.' are Kubernetes' own, and
`storage/obc` and `storage/external` hold one file a key. Reads with bounds; what the words mean is decided by
`device`, `storage` and `targets`.
"""

import functools
from collections.abc import AsyncIterator, Hashable, Mapping
from pathlib import Path

from replicator.config.assembly import storage_of_device, targets_of
from replicator.config.device import Inventory
from replicator.config.documents import read_text, stamps, visible_names
from replicator.config.manifests import EdgeDevice, Manifest, parse
from replicator.config.settings import Settings
from replicator.config.sources.env import environment_storage, word_files
from replicator.config.sources.follow import POLL_S, SETTLE_S, Snapshot, follow
from replicator.config.storage import BUCKET_WORDS, Words, choose
from replicator.errors import ConfigError
from replicator.model import Storage, Target
from replicator.observe.standing import Report

MAX_TOTAL_BYTES = 8 * 1024 * 1024
"""All manifests together; more is another directory, mounted by mistake."""


class FilesSource:
    """A device, or one workload of it, described by manifests."""

    heartbeat_s = 0.0

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        poll_s: float = POLL_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._poll_s, self._settle_s = poll_s, settle_s
        self._dir = settings.manifests_dir
        self._claim_dir = self._dir / "storage" / "obc"
        self._external_dir = self._dir / "storage" / "external"

    def read(self) -> tuple[Target, ...]:
        """The targets, with the files as they are now. Raises ConfigError."""
        inventory = Inventory.of(self._manifests())
        device = inventory.device(self._settings.device)
        storage = functools.partial(self._storage, inventory, device)
        return targets_of(inventory, device, self._settings, where=str(self._dir), storage=storage)

    def changes(self) -> AsyncIterator[Snapshot]:
        """The first snapshot at once, then one each time the files tell something new."""
        return follow(self.read, self._stamp, poll_s=self._poll_s, settle_s=self._settle_s)

    async def tell(self, report: Report) -> None:
        """Nobody is told."""

    def _stamp(self) -> Hashable:
        return stamps([self._dir, self._claim_dir, self._external_dir, *word_files(self._environ)])

    def _manifests(self) -> list[Manifest]:
        names = visible_names(self._dir)
        if names is None:
            fix = "Mount the manifests there, or set REPLICATOR_MANIFESTS_DIR"
            raise ConfigError(where=str(self._dir), problem="there is no such directory", fix=fix)
        found: list[Manifest] = []
        total = 0
        for name in names:
            if not name.endswith((".yaml", ".yml")):
                continue
            text = read_text(self._dir / name)
            total += len(text)
            if total > MAX_TOTAL_BYTES:
                problem = f"the manifests are larger than {MAX_TOTAL_BYTES} bytes together"
                raise ConfigError(where=str(self._dir), problem=problem, fix="Check that this is the right directory")
            found += parse(text, where=name)
        return found

    def _storage(self, inventory: Inventory, device: EdgeDevice | None) -> Storage:
        scheme = self._settings.s3_scheme
        mounts = (f"{self._claim_dir} (in-cluster claim)", f"{self._external_dir} (external storage)")
        if device is not None:
            return storage_of_device(
                device,
                inventory,
                scheme=scheme,
                mounted_claim=lambda: _mounted(self._claim_dir),
                mounted_external=lambda: _mounted(self._external_dir),
                mounts=mounts,
            )
        if not visible_names(self._claim_dir) and not visible_names(self._external_dir):
            return environment_storage(self._environ, scheme=scheme, looked_at=mounts)
        return choose(
            claim=lambda: _mounted(self._claim_dir),
            external=lambda: _mounted(self._external_dir),
            scheme=scheme,
            looked_at=mounts,
        )


def _mounted(directory: Path) -> Words | None:
    """The words of a key-per-file directory; None when it is not there or empty."""
    names = visible_names(directory)
    if not names:
        return None
    values = {word: read_text(directory / word) for word in BUCKET_WORDS if word in names}
    return Words(config=f"{directory}/", secret=f"{directory}/", values=values)
