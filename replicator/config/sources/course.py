"""From what a cluster says of a device to what is told of it: which device it is, that it leaves, that it is away.

Owns: whose configuration is in force, and the copy of it on disk (0600, for a start without the API server). Never: how
anything is heard (`watched`), or what the objects say (`moment`).
Source: Kubernetes sets deletionTimestamp first and removes an object once its finalizers are gone; no uid comes twice.
"""

import datetime as dt
import time
from collections.abc import Mapping

from replicator.config.assembly import storage_of_device, targets_of
from replicator.config.documents import MAX_FILE_BYTES, read_text
from replicator.config.settings import Settings
from replicator.config.sources.env import claim_authority
from replicator.config.sources.follow import Snapshot
from replicator.config.sources.kept import forget, keep
from replicator.config.sources.moment import Moment, Sighting, from_text, to_text
from replicator.errors import ConfigError
from replicator.model import Target
from replicator.observe import logs

log = logs.get("config")

KEPT_AS = "kubernetes.json"
_KEPT_BYTES = 8 * MAX_FILE_BYTES


class Course:
    """What was told of one device. Each method gives what is to be told next, in this order."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings, self._environ = settings, environ
        self._path = settings.state_dir / KEPT_AS
        self._text: str | None = None
        self._kept_since = ""
        self.uid = self.name = ""
        """Of the device whose targets are, or were, in force; '' for none."""
        self.is_leaving = False
        """Whether nothing is wanted of it any more."""

    def heard(self, moment: Moment) -> list[Snapshot]:
        """The cluster says all of it."""
        try:
            targets = self._targets(moment)
        except ConfigError as error:
            return self.refused(moment.sighting, error)
        told = self._seen(moment.sighting)
        if self.is_leaving:
            return told or [()]
        self.uid, self.name, self._kept_since = moment.sighting.uid, moment.device.metadata.name, ""
        if moment.sighting.is_leaving:
            # A start in the middle of a departure: what would run is what has to be sent to its end.
            return [targets, *self._leaves()]
        self._keep(to_text(moment))
        return [*told, targets]

    def refused(self, sighting: Sighting | None, error: ConfigError) -> list[Snapshot]:
        """What the cluster says makes no sense, or the device is not even there; then nobody has seen it."""
        told = self._seen(sighting) or self._by_kept(sighting)
        if self.uid and sighting and sighting.is_leaving and not self.is_leaving:
            told += self._leaves()
        return told or [()] if self.is_leaving else [*told, error]

    def gone(self) -> list[Snapshot]:
        """The device is no more: what ran is sent to its end, and nothing of it is used again."""
        self.drained()
        return self._leaves()

    def drained(self) -> None:
        """All is sent, or cannot be any more: a restart has nothing to go on with."""
        self._keep("")

    def silent(self, server: str, since_ts: float, problem: str = "") -> list[Snapshot]:
        """The API server is away, and why if that is known: what is in force stays so, at a start what was kept."""
        told = self._by_kept(None)
        why = f" ({problem})" if problem else ""
        problem = f"has not been heard since {_time(since_ts)}{why}{self._kept_since}"
        fix = "Check the network and the API server; the last good configuration stays in force"
        return [*told, ConfigError(where=server, problem=problem, fix=fix)]

    def _seen(self, sighting: Sighting | None) -> list[Snapshot]:
        """The device leaves, or another has its name, about which nothing is known yet."""
        if not self.uid or not sighting:
            return []
        if sighting.uid == self.uid:
            return self._leaves() if sighting.is_leaving and not self.is_leaving else []
        told = [] if self.is_leaving else self._leaves()
        self.drained()
        self.uid, self.is_leaving = "", False
        return told

    def _leaves(self) -> list[Snapshot]:
        self.is_leaving = True
        return [()]

    def _by_kept(self, sighting: Sighting | None) -> list[Snapshot]:
        """What was kept, at a start that has nothing better; not of another device that had the name."""
        if self.uid or not (kept := self._kept()):
            return []
        if sighting and sighting.uid != kept.sighting.uid:
            self.drained()
            return []
        self.uid, self.name = kept.sighting.uid, kept.device.metadata.name
        age_s = round(time.time() - self._path.stat().st_mtime)
        log.warning("started by what was kept", path=str(self._path), seconds=age_s)
        return [self._targets(kept)]

    def _targets(self, moment: Moment) -> tuple[Target, ...]:
        device, inventory = moment.device, moment.inventory
        return targets_of(
            inventory,
            device,
            self._settings,
            where=f"namespace {device.metadata.namespace}",
            storage=lambda: storage_of_device(
                device,
                inventory,
                scheme=self._settings.s3_scheme,
                claim_authority=claim_authority(self._environ),
            ),
        )

    def _keep(self, text: str) -> None:
        if text != self._text:
            (keep(self._path, text) if text else forget(self._path))
            self._text = text

    def _kept(self) -> Moment | None:
        """What was kept of this very device, if it still makes sense."""
        try:
            moment = from_text(read_text(self._path, at_most=_KEPT_BYTES), where=str(self._path))
            self._targets(moment)
            since_ts = self._path.stat().st_mtime
        except (ConfigError, OSError):
            return None
        metadata = moment.device.metadata
        if self._settings.device not in ("", metadata.name) or self._settings.namespace not in ("", metadata.namespace):
            return None
        self._kept_since = f", in force is what it said on {_time(since_ts)}"
        return moment


def _time(ts: float) -> str:
    return dt.datetime.fromtimestamp(ts, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
