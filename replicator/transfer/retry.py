"""The one retry policy. Libraries below make one attempt each; the queue does the waiting, so nobody sleeps on a key.

A key backs off by itself; an endpoint that fails for several keys in a row is closed for all of them and
probed by one request at a time. Waits are exponential with full jitter, so that a fleet does not come back in step.
Source: tenacity's wait strategies; "Exponential Backoff And Jitter" is the textbook name of the method.
"""

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_never, wait_random_exponential

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    JournalFull,
    Retryable,
    SourceChanged,
    Throttled,
    TransferError,
    Unavailable,
)

_SOURCE_CHANGED_MAX_S = 2.0
"""A file in motion is no fault: look again soon, however often it moved."""

_KEYS_TO_CLOSE = 3
"""So many different keys failing in a row mean the endpoint, not the keys."""


class RetryPolicy:
    """How long a failed key waits before it is looked at again."""

    def __init__(self, *, max_s: float, parked_s: float) -> None:
        self._parked_s = parked_s
        self._retrying = Retrying(
            retry=retry_if_exception_type(Retryable),
            wait=wait_random_exponential(multiplier=0.5, max=max_s),
            stop=stop_never,
        )

    def delay_s(self, error: TransferError, attempts: int) -> float:
        """Seconds until attempt `attempts + 1`. Permanent errors wait the slow pace of parked keys."""
        state = RetryCallState(self._retrying, None, (), {})
        state.attempt_number = attempts
        state.set_exception((type(error), error, None))
        if not self._retrying.retry(state):
            return self._parked_s
        delay_s = float(self._retrying.wait(state))
        if isinstance(error, SourceChanged):
            return min(delay_s, _SOURCE_CHANGED_MAX_S) if error.retry_after_s is None else error.retry_after_s
        if isinstance(error, Throttled) and error.retry_after_s is not None:
            return max(delay_s, error.retry_after_s)
        return delay_s


class Gate:
    """Whether an endpoint is worth asking. Closed, it lets one probe through each time its wait is over."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failed_keys: set[str] = set()
        self.failures = 0
        """Failures since the endpoint last answered, counted once they closed the gate."""
        self._closed_until_s = 0.0
        self._is_probing = False
        self.error: TransferError | None = None
        """Why it is closed; None while it is open."""

    def admits(self, now_s: float) -> bool:
        """Whether a request may be made now. A closed gate that admits waits for that probe's verdict."""
        if self.error is None:
            return True
        if self._is_probing or now_s < self._closed_until_s:
            return False
        self._is_probing = True
        return True

    def opens_s(self) -> float | None:
        """When a closed gate admits its next probe; None while open or while a probe is on its way."""
        return None if self.error is None or self._is_probing else self._closed_until_s

    def released(self) -> None:
        """The admitted job made no request after all."""
        self._is_probing = False

    def succeeded(self) -> None:
        """The endpoint answered a request as it should."""
        self._failed_keys.clear()
        self.failures = 0
        self._is_probing = False
        self.error = None

    def failed(self, key: str, error: TransferError, now_s: float) -> None:
        """A request failed. Errors that say nothing about other keys only end a probe."""
        self._is_probing = False
        if not isinstance(error, Unavailable | Throttled | AccessDenied | BucketMissing | JournalFull):
            return
        self._failed_keys.add(key)
        may_be_the_key = isinstance(error, Unavailable | AccessDenied)
        if self.error is None and may_be_the_key and len(self._failed_keys) < _KEYS_TO_CLOSE:
            return
        self.failures += 1
        self.error = error
        self._closed_until_s = now_s + self._wait_s(error)

    def _wait_s(self, error: TransferError) -> float:
        """A refusal is asked again at the pace of an outage: credentials may be mended at any moment."""
        as_outage = error if isinstance(error, Retryable) else Unavailable(str(error))
        return self._policy.delay_s(as_outage, min(self.failures + 1, 30))
