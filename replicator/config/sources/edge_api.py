"""The Edge API as a source: the device's message is polled, and the last good one is kept on disk.

Owns: the rhythm, what each answer means, the message that is kept (0600, in the state directory, because a device that
starts without the network has data to move). Never: TLS and HTTP (`edge_client`), the message's words (`message`).
Source: Flotta's Edge API: 404 is "not known yet", 401 and 403 are the certificate's, a disconnect command ends it all.
"""

import asyncio
import contextlib
import http.client
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

from replicator.config.documents import read_text
from replicator.config.message import DeviceMessage, is_disconnect, parse_message
from replicator.config.settings import Settings
from replicator.config.sources.edge_client import MAX_ANSWER_BYTES, Answer, EdgeClient, Identity
from replicator.config.sources.follow import Snapshot, is_same
from replicator.config.sources.kept import forget, keep
from replicator.config.storage import storage_of
from replicator.config.targets import build, served
from replicator.errors import ConfigError
from replicator.model import Target

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
        self._doubt = _Doubt()

    def read(self) -> tuple[Target, ...]:
        """The targets, from the Edge API or, where it cannot be asked, as it told them last. Raises ConfigError."""
        try:
            snapshot = self._poll()
            if isinstance(snapshot, ConfigError):
                raise snapshot
            return snapshot or ()
        finally:
            self._client.close()

    async def changes(self) -> AsyncIterator[Snapshot]:
        """The first snapshot at once, then one each time that the Edge API tells something new."""
        last: Snapshot | None = None
        try:
            while True:
                snapshot = await asyncio.to_thread(self._poll)
                if snapshot is not None and (last is None or not is_same(snapshot, last)):
                    last = snapshot
                    yield snapshot
                await asyncio.sleep(self._poll_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - spreads load
        finally:
            self._client.close()

    def _poll(self) -> Snapshot | None:
        """What is new, if anything; what cannot be asked for comes from the disk the first time."""
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
            self._message, self._etag = None, ""
            forget(self._kept)
            return ()
        answer = self._client.ask("data", self._etag)
        if answer.status == 304 and self._message:
            return self._targets(self._message)
        if answer.status == 200:
            return self._take(answer)
        if answer.status in (401, 403):
            problem = f"refuses the device's certificate ({answer.status})"
            raise ConfigError(where=self._client.where, problem=problem, fix="Renew it, or register the device anew")
        if answer.status == 404:
            fix = "Wait for its approval, or check REPLICATOR_DEVICE"
            raise ConfigError(where=self._client.where, problem="does not know this device (404)", fix=fix)
        raise http.client.HTTPException(f"it answers {answer.status}")

    def _take(self, answer: Answer) -> Snapshot | None:
        message = parse_message(answer.body, where=self._client.where)
        if self._message and _is_older(message.version, self._message.version):
            self._doubt.older += 1
            if self._doubt.older < _BELIEVED_AFTER:
                return None
        self._doubt.older = 0
        targets = self._targets(message)
        self._message, self._etag = message, answer.etag
        keep(self._kept, json.dumps(json.loads(answer.body)))
        return targets

    def _targets(self, message: DeviceMessage) -> tuple[Target, ...]:
        workloads = served(message.workloads, self._settings) if message.workloads else ()
        if not any(one.egress or one.ingress for one in workloads):
            return ()
        if message.storage is None:
            where, fix = f"{self._client.where}: content.configuration.storage.s3", "Look at the device's conditions"
            raise ConfigError(where=where, problem="is missing: the device has no bucket yet", fix=fix)
        storage = storage_of(message.storage, role="Edge API", scheme=self._settings.s3_scheme)
        return build(workloads, storage=storage, settings=self._settings)

    def _failed(self, problem: str) -> Snapshot | None:
        self._doubt.failures += 1
        fix = "Check REPLICATOR_EDGE_API_URL and the network; the last good configuration stays in force"
        error = ConfigError(where=self._client.where, problem=problem, fix=fix)
        if self._message and self._doubt.failures < _TOLD_AFTER:
            return None
        return self._or_kept(error)

    def _or_kept(self, error: ConfigError) -> Snapshot:
        """The configuration of the last run while this one has none yet; else the error."""
        if self._message is None:
            with contextlib.suppress(ConfigError):
                message = parse_message(read_text(self._kept, at_most=MAX_ANSWER_BYTES).encode(), where=str(self._kept))
                targets = self._targets(message)
                self._message = message
                return targets
        return error


def _is_older(version: str, than: str) -> bool:
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)
