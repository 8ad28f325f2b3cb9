"""What stands before an endpoint: who may ask now, and how many at a time.

A key backs off by itself (`retry`); an endpoint that fails for several keys in a row is closed for all of them, and is
probed by one request at a time. What it refuses to one target closes that target alone.
"""

import threading
from collections.abc import Callable

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    BudgetSpent,
    JournalFull,
    Retryable,
    Throttled,
    TransferError,
    Unavailable,
)
from replicator.transfer.concurrency import Concurrency
from replicator.transfer.retry import RetryPolicy

KEYS_TO_CLOSE = 3
"""So many different keys failing in a row mean the endpoint, not the keys."""

_SHARED = (Unavailable, Throttled, AccessDenied, BucketMissing, JournalFull, BudgetSpent)
"""Errors that other keys of the endpoint will meet as well."""

SMALL_PER_BULK = 4
"""So many slots for small files there are to one for large ones."""


class Door:
    """Open, or closed by failures: then it lets one probe through each time its wait is over. Safe from any thread."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._failures = 0
        self._error: TransferError | None = None
        self.losses = 0
        """How often the bucket was found missing: what it held before may be gone, also when it is there again."""
        self._on_verdict: Callable[[], object] = lambda: None
        self._policy = policy
        self._lock = threading.Lock()
        self._failed_keys: set[str] = set()
        self._closed_until_s = 0.0
        self._is_probing = False

    @property
    def failures(self) -> int:
        """Failures since the last good answer, counted once they closed it."""
        return self._failures

    @property
    def error(self) -> TransferError | None:
        """Why it is closed; None while it is open."""
        return self._error

    def tell(self, on_verdict: Callable[[], object]) -> None:
        """Call this, from any thread, when a probe has ended: whoever waits for it looks again."""
        self._on_verdict = on_verdict

    def admits(self, now_s: float) -> bool:
        """Whether a request may be made now. A closed one that admits waits for that probe's verdict."""
        with self._lock:
            if self._error is None:
                return True
            if self._is_probing or now_s < self._closed_until_s:
                return False
            self._is_probing = True
            return True

    def opens_s(self) -> float | None:
        """When a closed one admits its next probe; None while open or while a probe is on its way."""
        with self._lock:
            return None if self._error is None or self._is_probing else self._closed_until_s

    def released(self) -> None:
        """The admitted job made no request after all."""
        with self._lock:
            was_probing, self._is_probing = self._is_probing, False
        if was_probing:
            self._on_verdict()

    def succeeded(self) -> None:
        """The endpoint answered a request as it should."""
        with self._lock:
            self._failed_keys.clear()
            self._failures = 0
            self._is_probing = False
            was_closed, self._error = self._error is not None, None
        if was_closed:
            self._on_verdict()

    def renewed(self) -> None:
        """Other credentials or authorities from now on: what was refused before says nothing about them."""
        if isinstance(self._error, AccessDenied | Unavailable):
            Door.succeeded(self)

    def failed(self, key: str, error: TransferError, now_s: float) -> bool:
        """A request failed. Errors that say nothing about other keys only end a probe.

        Returns whether the endpoint was known to be away by then, so that this says nothing about the key.
        """
        with self._lock:
            was_closed, self._is_probing = self._error is not None, False
            is_shared = isinstance(error, _SHARED)
            if is_shared:
                self._close(key, error, now_s)
        if was_closed:
            self._on_verdict()
        return was_closed and is_shared

    def _close(self, key: str, error: TransferError, now_s: float) -> None:
        """Close, or stay closed for longer, once it is clear that not the key is to blame."""
        self._failed_keys.add(key)
        may_be_the_key = isinstance(error, Unavailable | AccessDenied)
        if self._error is None and may_be_the_key and len(self._failed_keys) < KEYS_TO_CLOSE:
            return
        self._failures += 1
        self._error = error
        self._closed_until_s = now_s + self._wait_s(error)

    def _wait_s(self, error: TransferError) -> float:
        """A refusal is asked again at the pace of an outage: credentials may be mended at any moment."""
        as_outage = error if isinstance(error, Retryable) else Unavailable(str(error))
        return self._policy.delay_s(as_outage, min(self._failures + 1, 30))


class Gate(Door):
    """What an endpoint bears: closed, a probe at a time; open, so many requests at a time. Safe from any thread."""

    def __init__(self, policy: RetryPolicy, concurrency: Concurrency) -> None:
        super().__init__(policy)
        self.concurrency = concurrency
        self._own: dict[str, TargetGate] = {}
        self._running = [0, 0]

    def of(self, target_id: str) -> "TargetGate":
        """The gate of one target behind this one."""
        with self._lock:
            if target_id not in self._own:
                self._own[target_id] = TargetGate(self, self._policy)
            return self._own[target_id]

    def enter(self, now_s: float, *, is_bulk: bool) -> bool:
        """Take a slot, if there is one and the gate admits; give it back with `leave`.

        Large files have slots beside those of small ones, a quarter as many, so that neither waits for the other.
        """
        if not self.has_slot(is_bulk=is_bulk) or not self.admits(now_s):
            return False
        with self._lock:
            self._running[is_bulk] += 1
        return True

    def has_slot(self, *, is_bulk: bool) -> bool:
        """Whether a slot is free, gate or no gate."""
        limit = self.concurrency.limit
        return self._running[is_bulk] < (max(1, limit // SMALL_PER_BULK) if is_bulk else limit)

    def leave(self, *, is_bulk: bool) -> None:
        """Give back a slot."""
        with self._lock:
            self._running[is_bulk] -= 1

    def renewed(self) -> None:
        super().renewed()
        for own in self._own.values():
            own.renewed()

    def failed(self, key: str, error: TransferError, now_s: float) -> bool:
        if isinstance(error, Throttled):
            self.concurrency.throttled()
        if isinstance(error, BucketMissing):
            for door in (self, *self._own.values()):
                door.losses += 1
        return super().failed(key, error, now_s)


class TargetGate(Gate):
    """The gate of one target behind that of its endpoint: what the store refuses to this target stops no other.

    Its own part closes for AccessDenied, for credentials may well read one prefix and not write another.
    """

    def __init__(self, endpoint: Gate, policy: RetryPolicy) -> None:
        super().__init__(policy, endpoint.concurrency)
        self._endpoint = endpoint

    @property
    def failures(self) -> int:
        return max(self._failures, self._endpoint.failures)

    @property
    def error(self) -> TransferError | None:
        return self._endpoint.error or self._error

    def tell(self, on_verdict: Callable[[], object]) -> None:
        super().tell(on_verdict)
        self._endpoint.tell(on_verdict)

    def enter(self, now_s: float, *, is_bulk: bool) -> bool:
        return self._both(now_s, lambda: self._endpoint.enter(now_s, is_bulk=is_bulk))

    def has_slot(self, *, is_bulk: bool) -> bool:
        return self._endpoint.has_slot(is_bulk=is_bulk)

    def leave(self, *, is_bulk: bool) -> None:
        self._endpoint.leave(is_bulk=is_bulk)

    def admits(self, now_s: float) -> bool:
        return self._both(now_s, lambda: self._endpoint.admits(now_s))

    def _both(self, now_s: float, is_admitted: Callable[[], bool]) -> bool:
        if not super().admits(now_s):
            return False
        if is_admitted():
            return True
        with self._lock:
            self._is_probing = False
        return False

    def opens_s(self) -> float | None:
        own_s, endpoint_s = super().opens_s(), self._endpoint.opens_s()
        if (self._error and own_s is None) or (self._endpoint.error and endpoint_s is None):
            return None
        return max((moment for moment in (own_s, endpoint_s) if moment is not None), default=None)

    def released(self) -> None:
        super().released()
        self._endpoint.released()

    def succeeded(self) -> None:
        super().succeeded()
        self._endpoint.succeeded()

    def failed(self, key: str, error: TransferError, now_s: float) -> bool:
        if isinstance(error, AccessDenied):
            self._endpoint.succeeded()  # it answers; it is this target that is refused
            return super().failed(key, error, now_s)
        super().released()
        return self._endpoint.failed(key, error, now_s)
