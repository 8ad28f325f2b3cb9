"""The Edge API as a source: the device's message is polled, the last good one is kept on disk, heartbeats go back.

Owns: the rhythm, what each answer means, the message that is kept (0600, in the state directory, because a device that
starts without the network has data to move) until a disconnected device has sent and told all. Never: TLS and HTTP
(`edge_client`), the words of messages (`message`).
Source: Flotta's Edge API: 404 is "not known yet", 401 and 403 are the certificate's, a disconnect command ends it all.
"""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import random
import threading
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from replicator.config.documents import read_text
from replicator.config.message import DeviceMessage, heartbeat, is_disconnect, parse_message
from replicator.config.settings import Settings
from replicator.config.sources.edge_client import MAX_ANSWER_BYTES, Answer, EdgeClient, Identity
from replicator.config.sources.follow import Snapshot, is_same
from replicator.config.sources.kept import forget, keep
from replicator.config.storage import storage_of
from replicator.config.targets import build, served
from replicator.errors import ConfigError
from replicator.model import Target
from replicator.observe import logs
from replicator.observe.standing import Report

log = logs.get("config")

KEPT_AS = "edge-api.json"
_TOLD_AFTER = 3
"""Polls in a row that fail before people are told: one lost answer says nothing."""
_BELIEVED_AFTER = 3
"""Polls in a row that bring an older version before that is believed: a replica lags, a restored cluster stays so."""
_JITTER = 0.2


@dataclass
class _Doubt:
    """What was told several times in a row before it is acted upon."""

    failures: int = 0
    older: int = 0


class EdgeApiSource:
    """A device's workloads and bucket, as its Edge API tells them."""

    def __init__(self, settings: Settings, *, poll_s: float | None = None) -> None:
        self._settings = settings
        self._poll_s = poll_s or settings.edge_api_poll_s
        identity = Identity(settings.edge_api_cert, settings.edge_api_key, settings.edge_api_ca)
        self._client = EdgeClient(settings.edge_api_url, settings.device, identity)
        self._kept = settings.state_dir / KEPT_AS
        self._etag = ""
        self._message: DeviceMessage | None = None
        """What runs, or ran last; None once nothing of it is left to send."""
        self._doubt = _Doubt()
        self._turn = threading.Lock()
        self._is_followed = self._is_leaving = False
        self.heartbeat_s = settings.edge_api_heartbeat_s

    def read(self) -> tuple[Target, ...]:
        """The targets, from the Edge API or, where it cannot be asked, as it told them last. Raises ConfigError."""
        try:
            snapshot = self._poll()
            if isinstance(snapshot, ConfigError):
                raise snapshot
            return () if self._is_leaving else snapshot or ()
        finally:
            self._client.close()

    async def changes(self) -> AsyncIterator[Snapshot]:
        """The first snapshot at once, then one each time that the Edge API tells something new."""
        last: Snapshot | None = None
        self._is_followed = True
        try:
            while True:
                snapshot = await asyncio.to_thread(self._poll)
                if snapshot is not None and (last is None or not is_same(snapshot, last)):
                    last = snapshot
                    yield snapshot
                await asyncio.sleep(self._poll_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - spreads load
        finally:
            self._is_followed = False
            self._client.close()

    async def tell(self, report: Report) -> None:
        """Send a heartbeat, where that is set. One that says drained and is taken ends what is known of the device."""
        await asyncio.to_thread(self._tell, report)

    def _poll(self) -> Snapshot | None:
        """What is new, if anything; what cannot be asked for comes from the disk the first time."""
        with self._turn:
            try:
                snapshot = self._ask()
            except (OSError, http.client.HTTPException) as exc:
                snapshot = self._failed(f"cannot be asked: {exc or type(exc).__name__}")
            except ConfigError as exc:
                snapshot = self._or_kept(exc)
            else:
                self._doubt.failures = 0
            return snapshot

    def _ask(self) -> Snapshot | None:
        control = self._client.ask("control")
        if control.status == 200 and is_disconnect(control.body, where=self._client.where):
            return self._leave()
        if self._is_leaving:
            if control.status != 200:
                raise http.client.HTTPException(f"it answers {control.status}")
            self._is_leaving, self._message = False, None  # registered anew: nothing of before counts
            forget(self._kept)
        answer = self._client.ask("data", self._etag)
        if answer.status == 304 and self._message and self._etag:
            return _targets(self._message, self._settings, where=self._client.where)
        if answer.status == 200:
            return self._take(answer)
        if answer.status in (401, 403):
            problem = f"refuses the device's certificate ({answer.status})"
            raise ConfigError(where=self._client.where, problem=problem, fix="Renew it, or register the device anew")
        if answer.status == 404:
            fix = "Wait for its approval, or check REPLICATOR_DEVICE"
            raise ConfigError(where=self._client.where, problem="does not know this device (404)", fix=fix)
        raise http.client.HTTPException(f"it answers {answer.status}")

    def _leave(self) -> Snapshot:
        """Nothing is wanted any more. What the process before this one ran, runs until the next poll: to be drained."""
        is_first, self._is_leaving, self._etag = not self._is_leaving, True, ""
        return (is_first and self._message is None and self._from_disk()) or ()

    def _tell(self, report: Report) -> None:
        with self._turn:
            if self._message is None:
                return  # nothing to answer for: what ran is not known, or all is told
            is_drained = report.is_drained and self._is_leaving
            try:
                if self.heartbeat_s:
                    _post(self._client, dataclasses.replace(report, is_drained=is_drained), self._message.version)
            finally:
                if not self._is_followed:
                    self._client.close()
            if is_drained:
                self._message = None
                forget(self._kept)
                log.info("device is disconnected, and all that ran is sent")

    def _take(self, answer: Answer) -> Snapshot | None:
        message = parse_message(answer.body, where=self._client.where)
        if self._message and _is_older(message.version, self._message.version):
            self._doubt.older += 1
            if self._doubt.older < _BELIEVED_AFTER:
                return None
        self._doubt.older = 0
        targets = _targets(message, self._settings, where=self._client.where)
        self._message, self._etag = message, answer.etag
        keep(self._kept, json.dumps(json.loads(answer.body)))
        return targets

    def _failed(self, problem: str) -> Snapshot | None:
        self._doubt.failures += 1
        fix = "Check REPLICATOR_EDGE_API_URL and the network; the last good configuration stays in force"
        error = ConfigError(where=self._client.where, problem=problem, fix=fix)
        if self._message and self._doubt.failures < _TOLD_AFTER:
            return None
        return self._or_kept(error)

    def _or_kept(self, error: ConfigError) -> Snapshot:
        """The configuration of the last run while this one has none yet; else the error."""
        targets = self._from_disk() if self._message is None else None
        return error if targets is None else targets

    def _from_disk(self) -> tuple[Target, ...] | None:
        with contextlib.suppress(ConfigError):
            message = parse_message(read_text(self._kept, at_most=MAX_ANSWER_BYTES).encode(), where=str(self._kept))
            targets = _targets(message, self._settings, where=self._client.where)
            self._message = message
            return targets
        return None


def _targets(message: DeviceMessage, settings: Settings, *, where: str) -> tuple[Target, ...]:
    workloads = served(message.workloads, settings) if message.workloads else ()
    if not any(one.egress or one.ingress for one in workloads):
        return ()
    if message.storage is None:
        where, fix = f"{where}: content.configuration.storage.s3", "Look at the device's conditions"
        raise ConfigError(where=where, problem="is missing: the device has no bucket yet", fix=fix)
    storage = storage_of(message.storage, role="Edge API", scheme=settings.s3_scheme)
    return build(workloads, storage=storage, settings=settings)


def _post(client: EdgeClient, report: Report, version: str) -> None:
    """Raises ConfigError when it was not taken."""
    try:
        status = client.tell(heartbeat(report, version=version, message_id=str(uuid.uuid4()))).status
        problem = "" if 200 <= status < 300 else f"does not take the heartbeat ({status})"
    except (OSError, http.client.HTTPException) as exc:
        problem = f"cannot be told: {exc or type(exc).__name__}"
    if problem:
        fix = "Check the network and the device's registration; data goes on moving"
        raise ConfigError(where=client.where, problem=problem, fix=fix)


def _is_older(version: str, than: str) -> bool:
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)
