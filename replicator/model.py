"""The values that travel between the rooms. Frozen, no behaviour beyond deriving one value from another.

Words: `path` is absolute and local, `relpath` is inside a target ('/'-separated, surrogate-escaped where a
file name is not UTF-8), `key` is the full object key, `etag` is unquoted. Never here: I/O, clocks, asyncio.
"""

import enum
from dataclasses import dataclass, field, replace

from pydantic import SecretStr

OWN_DIR = ".replicator"
"""Our own directory at the top of an export: temporary files on the same file system. Never replicated."""

INCOMING_DIR = ".incoming"
"""Where the files of a target that publishes generations land, beneath its directory."""
GENERATIONS_DIR = ".generations"
CURRENT = "current"
"""The link, beside these two, to the generation in force."""


class Direction(enum.StrEnum):
    """Who owns the truth: egress the file, ingress the object."""

    EGRESS = "egress"
    INGRESS = "ingress"


@dataclass(frozen=True, slots=True)
class Prefix:
    """A key prefix that is either empty or ends with '/', so that `data` never matches `data2/x`."""

    text: str

    def __post_init__(self) -> None:
        segments = self.text.split("/")
        if self.text and (segments[-1] != "" or any(part in ("", ".", "..") for part in segments[:-1])):
            raise ValueError(f"not a prefix: {self.text!r}")

    def __str__(self) -> str:
        return self.text


_LEAST_HINTED = 12
"""Letters of an access key's id. The end of a shorter one would tell too much of it; those of AWS have 20."""


@dataclass(frozen=True, slots=True)
class Storage:
    """One bucket and how to reach it. `origin` says where the words came from, for people."""

    endpoint: str
    """scheme://host[:port], never with a path."""
    bucket: str
    region: str
    access_key_id: SecretStr
    secret_access_key: SecretStr
    session_token: SecretStr = field(default_factory=lambda: SecretStr(""))
    """Of temporary credentials; empty for lasting ones."""
    ca_pem: str = ""
    """PEM of extra certificate authorities; empty means the system's own only."""
    origin: str = field(default="", compare=False)

    @property
    def secrets(self) -> tuple[SecretStr, SecretStr, SecretStr]:
        """What no line may show."""
        return self.access_key_id, self.secret_access_key, self.session_token

    @property
    def key_hint(self) -> str:
        """The end of the access key's id, which tells people the key and serves nobody else; '' of a short one."""
        text = self.access_key_id.get_secret_value()
        return f"...{text[-4:]}" if len(text) >= _LEAST_HINTED else ""

    @property
    def place(self) -> str:
        """Where objects land, without credentials: what the journal's rows are true for."""
        return f"{self.endpoint}/{self.bucket}"


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What may differ from target to target. Globs are matched against the relpath, '**' crosses '/'."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hard_links: str = "refuse"
    open_files: str = "wait"
    restore_deleted: bool = True
    ingress_marker: str = ""
    """Relpath of the object that tells whether to list; empty always lists."""
    ingress_audit_s: float = 3600.0
    ingress_publish: str = "files"
    """`files` one by one, or a whole `generation` that the marker names."""
    quota_bytes: int = 0
    order: str = "oldest"
    order_patterns: tuple[str, ...] = ()
    """Read with order `pattern` only; never empty then."""
    priority: int = 0
    """Higher goes first."""
    egress_barrier: str = ""
    """Name of the file that is sent last of its directory; empty for none."""
    delete_after_upload: bool = False
    """Egress only."""


@dataclass(frozen=True, slots=True)
class Target:
    """One direction of one data path: a local directory and a key prefix that are kept in step."""

    workload: str
    direction: Direction
    root: str
    """Absolute path of the workload's export directory."""
    subdir: str
    """The mapped directory beneath `root`, '' for the root itself."""
    prefix: Prefix
    storage: Storage
    options: TargetOptions = TargetOptions()
    origin: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """Short, stable, for people, metrics labels and per-target options: workload/direction/prefix."""
        return f"{self.workload}/{self.direction}/{self.prefix.text.rstrip('/') or '.'}"

    @property
    def has_generations(self) -> bool:
        """Whether its files become visible set by set. `subdir` then ends in `INCOMING_DIR`."""
        return self.direction is Direction.INGRESS and self.options.ingress_publish == "generation"

    def is_renewal(self, other: "Target") -> bool:
        """Whether this is `other` with new words for the same bucket: credentials, authorities, region."""
        is_there = self.storage.place == other.storage.place and self.storage != other.storage
        return is_there and replace(self, storage=other.storage) == other

    @property
    def identity(self) -> str:
        """What the journal's rows belong to: they are void once any part of this changes."""
        return "\n".join((self.workload, self.direction, self.subdir, self.prefix.text, self.storage.place))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the kernel tells about a file's version without reading it. Times in ns since the epoch.

    ctime_ns 0 means unknown: rename(2) moves ctime, so it cannot be known before a file is published.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int

    def matches(self, other: "Fingerprint") -> bool:
        """Whether both describe one version; an unknown ctime on either side is not compared."""
        if 0 in (self.ctime_ns, other.ctime_ns):
            return (self.size, self.mtime_ns, self.ino) == (other.size, other.mtime_ns, other.ino)
        return self == other


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file as last looked at."""

    relpath: str
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object as LIST or HEAD told it. Metadata is None when only listed (LIST never carries it)."""

    key: str
    size: int
    etag: str
    mtime_ns: int
    """LastModified of the store, ns since the epoch (whole seconds in S3)."""
    metadata: dict[str, str] | None = field(default=None, compare=False, hash=False)


@dataclass(frozen=True, slots=True)
class Row:
    """The journal's memory of one path: the version that both sides held at one moment."""

    relpath: str
    fingerprint: Fingerprint
    etag: str
    checksum: str
    """Written form of `replicator.checksum`; '' when the content's checksum is not known."""
    is_verified: bool = False
    """The store, or we, confirmed that both sides hold these very bytes."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a multipart upload that the store has confirmed."""

    number: int
    """From 1."""
    etag: str
    md5: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """The journal's memory of a multipart upload that is not complete. Its parts are good for one version only."""

    relpath: str
    upload_id: str
    fingerprint: Fingerprint
    part_size: int
    """Bytes of each part but the last."""
    parts: tuple[Part, ...] = ()
    """In ascending order of their numbers; gaps are parts that were not confirmed."""


LATE_LOOK_S = 60.0
"""What is late is mostly late by seconds: a store's queue, a proxy's buffer, the kernel's."""

LATE_OVER_S = 31 * 60.0
"""Nothing comes in any more: stores refuse a signature that is 15 min older, or newer, than their clock. So a device
whose clock is 15 min ahead has it taken for 30 min; the last minute is for the store to carry it out."""


@dataclass(frozen=True, slots=True)
class LateWrite:
    """A request for one path that was sent and never answered: the store may carry it out, over what came after it."""

    relpath: str
    checksum: str
    """Of the content that it would write, in written form; '' for several contents, or when not known."""
    since_s: int
    """When the last such request failed: seconds since the epoch, rounded up, by the clock that signs requests."""
    is_looked_at: bool = False
    """Whether the first look at the object is over."""

    @property
    def due_s(self) -> float:
        """When the object is to be looked at next."""
        return self.since_s + (LATE_OVER_S if self.is_looked_at else LATE_LOOK_S)

    def is_due(self, now_s: float) -> bool:
        """Whether it is to be looked at. A request from so far ahead was refused, if the clock is right by now."""
        return now_s >= self.due_s or now_s < self.since_s - LATE_OVER_S


@dataclass(frozen=True, slots=True)
class Unseen:
    """The other side was not looked at. Not the same as absent, which is None."""


UNSEEN = Unseen()


@dataclass(frozen=True, slots=True)
class Hint:
    """Something may have changed: look again. Carries no verdict; may be lost, doubled or stale.

    relpath None means the whole target. `remote` is an observation that saves a request, or UNSEEN; `local` one that
    lets people see how much waits and since when, before anybody has looked again.
    """

    relpath: str | None
    remote: RemoteObject | Unseen | None = UNSEEN
    local: LocalFile | None = None


class Action(enum.Enum):
    """What the decision table answers; `reconcile.classify` explains each."""

    SKIP = "skip"
    COPY = "copy"
    CHECK = "check"
    """Compare contents first: ADOPT when they are equal, COPY when not."""
    ADOPT = "adopt"
    FORGET = "forget"
    LEAVE = "leave"
    STRAY = "stray"
