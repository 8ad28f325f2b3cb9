"""The error tree, and the one question code asks of an error: again later, or never.

    ReplicatorError
      ConfigError(where, problem, fix)         nothing starts or changes; exit code 2
      JournalError                             the state directory cannot be trusted; ends the process
      ClusterError(problem, status, reason)    the Kubernetes API server did not do what was asked
        Unreachable      no answer, 408, 429, 5xx: again later
        Forbidden        401, 403: credentials or rights
        Conflict         409: the object moved, exists, or somebody else owns the field
        Gone             410: the version asked for is compacted; list anew
        Invalid          422: the object breaks a rule of its kind
        LeaseLost        another replica may be at work by now
      TransferError                            one item could not move; the rest goes on
        Retryable                              the same attempt may succeed later, soon
          Unavailable      5xx, an answer that is not one of S3
            Unanswered     no answer, or not to its end: no connection, a cut one, timeout
          Throttled        503 SlowDown, 429
          BudgetSpent      the data budget of this period is used up
          Stopping         the process is about to end
          SourceChanged    the file moved while it was read, or is still open for writing
          RemoteChanged    the object moved between LIST and GET
          DiskFull         no room on the device
            JournalFull    no room for the journal: nothing can be recorded, whatever is moved
          IntegrityFailed  what arrived is not what was announced
        Permanent                              a person must act; retried at the slow pace
          ObjectMissing    404 on a key
          AccessDenied     401, 403
            CredentialsRefused  whatever is asked for: unknown or expired key, clock skew
          BucketMissing    404 on the bucket
          KeyUnsafe        a name that has no safe or legal counterpart on the other side
          Refused          policy or file system forbids it (unreadable, conflict limit, ...)
            LeftOut        a rule leaves it out: directory, link, special file, hard link, other file system

Foreign exceptions are translated in `stores` and `cluster` only. Nothing decides by message text.
Never put a secret or a signed URL into a message: messages reach logs, /status and terminals.
"""


class ReplicatorError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(ReplicatorError):
    """A configuration that cannot be used: `where` (file and field), `problem`, and the `fix`."""

    def __init__(self, *, where: str, problem: str, fix: str) -> None:
        super().__init__(f"{where}: {problem}. {fix}")
        self.where = where
        self.problem = problem
        self.fix = fix


class JournalError(ReplicatorError):
    """The state directory or the journal in it cannot be used at all."""


class ClusterError(ReplicatorError):
    """The API server did not do it. `status` 0: it did not answer at all; `reason`: its word for it, or ''."""

    def __init__(self, problem: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status
        self.reason = reason


class Unreachable(ClusterError):
    """No answer, a cut or late one, or a server that is busy or broken: the same request may succeed later."""


class Forbidden(ClusterError):
    """The API server does not know these credentials, or they lack the right."""


class Conflict(ClusterError):
    """The object is another by now, exists already, or the field belongs to somebody else: look again."""


class Gone(ClusterError):
    """The API server no longer knows what happened since that version."""


class Invalid(ClusterError):
    """The object breaks a rule of its kind; the same request never succeeds."""


class LeaseLost(ClusterError):
    """The Lease was not renewed in time, or another replica holds it."""


class TransferError(ReplicatorError):
    """One item could not be moved. `reason` is a closed-set word for metrics and status."""

    reason = "error"

    def forget_trace(self) -> None:
        """Let go of where it came from, once that is logged: a traceback keeps all that its frames held, bodies too."""
        self.__traceback__ = self.__cause__ = self.__context__ = None


class Retryable(TransferError):
    """Again soon: the fault lies outside the item, or the item was in motion."""


class Permanent(TransferError):
    """A person must act; the item is parked and looked at again at the slow pace."""


class Unavailable(Retryable):
    """The endpoint did not answer, answered 5xx, or the connection was cut."""

    reason = "unavailable"


class Unanswered(Unavailable):
    """There was no answer, or not to its end: no connection, a cut one, no name, no trust, no time left."""


class Throttled(Retryable):
    """The store asked for less: 503 SlowDown or 429. `retry_after_s` when it said how long."""

    reason = "throttled"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BudgetSpent(Retryable):
    """The bytes that may move in the budget's period have moved. `retry_after_s`: when it is worth asking again."""

    reason = "data-budget"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Stopping(Retryable):
    """The process is about to end; the next start takes the transfer up again."""

    reason = "stopping"


class SourceChanged(Retryable):
    """The local file changed while it was read, or a writer still holds it open.

    `retry_after_s` when it is known how long the file still has to be quiet.
    """

    reason = "source-changed"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HeldBack(SourceChanged):
    """A barrier file whose directory is not in the bucket yet."""

    reason = "held-back"


class RemoteChanged(Retryable):
    """The object is no longer the version that was looked at."""

    reason = "remote-changed"


class DiskFull(Retryable):
    """No room: the free-space floor, the quota, or the file system itself said so."""

    reason = "disk-full"


class JournalFull(DiskFull):
    """No room where the journal is: what is moved cannot be recorded, so moving anything is in vain."""


class IntegrityFailed(Retryable):
    """Length or checksum of what arrived differs from what was announced; it was discarded."""

    reason = "integrity"


class ObjectMissing(Permanent):
    """There is no such object."""

    reason = "object-missing"


class AccessDenied(Permanent):
    """The store refuses these credentials, or their signature (also a device clock that is off)."""

    reason = "access-denied"


class CredentialsRefused(AccessDenied):
    """The store knows the access key no longer, or not at this hour, whatever object is asked for."""


class BucketMissing(Permanent):
    """There is no such bucket at this endpoint."""

    reason = "bucket-missing"


class KeyUnsafe(Permanent):
    """A key that leads outside the target, or a file name that S3 cannot carry."""

    reason = "unsafe-name"


class Refused(Permanent):
    """The item exists but must not, or cannot, be touched; the message says which rule."""

    reason = "refused"


class LeftOut(Refused):
    """What is there is none of replication's business as it is; `reason` is the word of the rule."""

    def __init__(self, message: str, *, rule: str) -> None:
        super().__init__(message)
        self.reason = rule
