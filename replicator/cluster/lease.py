"""One active replica at a time, by a Lease at the API server.

Owns: taking, renewing and giving back. Never: what the active replica does.
Another's Lease has expired when it did not change for its whole duration by OUR clock, for clocks of machines differ;
ours is lost well before another can think so. Times, and that rule, are those of Kubernetes' own components.
"""

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import LEASE, Object, version_of
from replicator.errors import ClusterError, Conflict, LeaseLost
from replicator.observe import logs

_GIVE_BACK_S = 2.0
"""Then it is left to expire: the end of a replica must not wait for an API server."""

_log = logs.get("cluster")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: a Lease nobody renews is free after `duration_s`; its holder gives up after `renew_within_s`."""

    duration_s: float = 15.0
    renew_within_s: float = 10.0
    retry_s: float = 2.0


class Lease:
    """One candidate for the Lease `name`; `holder` has to be unique, also among restarts."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        *,
        holder: str,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timing = timing or Timing()
        self._cluster, self._namespace, self._name, self._holder = cluster, namespace, name, holder
        self._clock = clock
        self._seen: Object = {}
        self._seen_at = clock()
        self._renewed_at = 0.0

    async def try_to_hold(self) -> bool:
        """Take or renew it, in one attempt; False when another holds it. Raises ClusterError."""
        asked_at = self._clock()
        found = await self._cluster.get(LEASE, self._namespace, self._name)
        if found is None:
            meta = {"name": self._name, "namespace": self._namespace}
            change = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta, "spec": self._claim({})}
            write = self._cluster.create
        else:
            if not self._is_free(found):
                return False
            change, write = found | {"spec": self._claim(found.get("spec") or {})}, self._cluster.replace
        try:
            self._seen = await write(LEASE, change)
        except Conflict:
            return False
        self._renewed_at = self._seen_at = asked_at
        return True

    async def keep(self) -> None:
        """Renew it for ever. Raises LeaseLost as soon as another may hold it."""
        while True:
            await asyncio.sleep(self.timing.retry_s)
            left_s = self._renewed_at + self.timing.renew_within_s - self._clock()
            problem = "was not renewed in time"
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    if await self.try_to_hold():
                        continue
                if self._spec().get("holderIdentity") != self._holder:
                    raise LeaseLost(f"the Lease {self._name} is held by another replica")
            except TimeoutError:
                pass
            except LeaseLost:
                raise
            except ClusterError as exc:
                problem += f", {exc}"
            if self._clock() >= self._renewed_at + self.timing.renew_within_s:
                raise LeaseLost(f"the Lease {self._name} {problem}")

    async def give_back(self) -> None:
        """Free it for the next at once, if it is still ours."""
        # As it is now: a renewal that was cancelled may have been done all the same.
        found = await self._cluster.get(LEASE, self._namespace, self._name)
        spec = (found or {}).get("spec") or {}
        if found and spec.get("holderIdentity") == self._holder:
            spec |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
            await self._cluster.replace(LEASE, found | {"spec": spec})

    def _is_free(self, found: Object) -> bool:
        """Whether it is ours, nobody's, or has not changed for its whole duration since we first saw it so."""
        if version_of(found) != version_of(self._seen):
            self._seen, self._seen_at = found, self._clock()
        holder = self._spec().get("holderIdentity")
        duration_s = float(self._spec().get("leaseDurationSeconds") or self.timing.duration_s)
        return holder in {None, "", self._holder} or self._clock() - self._seen_at >= duration_s

    def _spec(self) -> Object:
        return self._seen.get("spec") or {}

    def _claim(self, spec: Object) -> Object:
        """`spec`, held by us."""
        is_ours = spec.get("holderIdentity") == self._holder
        return spec | {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": max(1, round(self.timing.duration_s)),
            "acquireTime": spec.get("acquireTime") if is_ours else _now(),
            "renewTime": _now(),
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (bool(spec) and not is_ours),
        }


@contextlib.asynccontextmanager
async def held(lease: Lease) -> AsyncIterator[None]:
    """Wait until `lease` is ours; what is inside is cancelled, and LeaseLost raised, when it no longer is."""
    await _taken(lease)
    try:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(lease.keep(), name="lease")
            try:
                yield
            finally:
                renewing.cancel()
    except BaseExceptionGroup as group_of_one:
        raise group_of_one.exceptions[0] from None
    finally:
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(_GIVE_BACK_S):
                await lease.give_back()


async def _taken(lease: Lease) -> None:
    problem = ""
    while True:
        try:
            if await lease.try_to_hold():
                return
            problem = ""
        except ClusterError as exc:
            if not problem:
                _log.warning("lease cannot be asked for", error=exc)
            problem = str(exc)
        await asyncio.sleep(lease.timing.retry_s)


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
