"""Settings: every knob of the program, and where its value came from.

Precedence: flag > environment `REPLICATOR_*` > the YAML file named by `config` > default. One field is `--kebab-name`,
`REPLICATOR_NAME` and a YAML key; `REPLICATOR_NAME_FILE` reads the value from a file. One secret, the token of
notifications, masks itself; the words of a bucket are no settings. Anything unknown or out of bounds is one
ConfigError.
"""

import json
import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from replicator.config.bandwidth import Allowance, Timetable
from replicator.config.documents import parse_yaml, read_text
from replicator.config.fields import (
    AllowanceText,
    AuditInterval,
    Count,
    DataPaths,
    Directory,
    FileName,
    HttpsUrl,
    IngressPublish,
    ListenAddress,
    LogLevel,
    MarkerName,
    Namespace,
    Number,
    OptionalDirectory,
    OptionalPath,
    OptionalPemFile,
    Order,
    Patterns,
    PemFile,
    Priority,
    TargetPatches,
    TimetableText,
    Token,
)
from replicator.config.manifests import DataPath
from replicator.config.shapes import Shape, did_you_mean, explain
from replicator.errors import ConfigError

_PREFIX = "REPLICATOR_"
_MIB = 1024 * 1024
_DAY_S = 86400

# Kubernetes gives every Pod these for each Service, so for one that is called replicator or replicator-x too.
_SERVICE_WORD = re.compile(
    r"REPLICATOR_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR))"
)
_SERVICE_URL = re.compile(r"REPLICATOR_([A-Z0-9_]+_)?PORT(_[0-9]+_(TCP|UDP|SCTP))?")


class _Sources(Shape, BaseSettings):
    """Where the words come from, and where files and journal are."""

    model_config = SettingsConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=False)

    config: OptionalPath = None
    """YAML file with settings by their names."""
    source: Literal["env", "files", "edge-api", "kubernetes"] = "env"
    """Where workloads and storage come from: the environment with these settings, manifests, Edge API, or cluster."""
    manifests_dir: Directory = Path("/etc/replicator/manifests")
    """Directory of EdgeWorkload, EdgeDevice, ConfigMap and Secret YAML, and of mounted storage/ (source files)."""
    device: str = ""
    """Name of this EdgeDevice; empty means the only one (source files, kubernetes), and source edge-api needs it."""
    namespace: Namespace = ""
    """Namespace of this EdgeDevice; empty means the service account's, or the kubeconfig's (source kubernetes)."""
    edge_api_url: HttpsUrl = ""
    """Address of the Edge API up to the channel, as in https://edge.example/api/flotta-management/v1."""
    edge_api_cert: PemFile = Path("/etc/pki/consumer/cert.pem")
    """PEM file of the device's certificate; looked at again before each poll (source edge-api)."""
    edge_api_key: PemFile = Path("/etc/pki/consumer/key.pem")
    """PEM file of its key (source edge-api)."""
    edge_api_ca: OptionalPemFile = None
    """PEM file of the authority that signed the Edge API's certificate; empty trusts the system's (source edge-api)."""
    edge_api_poll_s: Number = Field(default=30.0, ge=1, le=3600)
    """Seconds between polls, a fifth more or less at random (source edge-api)."""
    edge_api_heartbeat_s: Number = Field(default=0.0, ge=0, le=3600)
    """Seconds between heartbeats to the Edge API, sooner at a change of state; 0 where Flotta's agent sends them.

    A device that is unregistered says with one that all is sent; without it, its storage stays for the grace period.
    """
    kubernetes_heartbeat_s: Number = Field(default=60.0, ge=0, le=3600)
    """Seconds between reports in the EdgeDevice's status, sooner at a change of state; 0 is none (source kubernetes).

    Only where all workloads of the device are served: what one sidecar knows is not how the device stands.
    """
    workload: str = ""
    """Name of the one workload to serve; empty means the only one, or all in device mode."""
    export_dir: Directory = Path("/export")
    """The workload's export directory (sidecar mode)."""
    volumes_dir: OptionalDirectory = None
    """Directory with a subdirectory a workload; setting it turns device mode on."""
    state_dir: Directory = Path("/var/lib/replicator")
    """Directory of the journal; outside every export, or it would replicate itself."""
    egress: DataPaths = ()
    """Directories to send: directory=prefix, comma-separated, or a JSON list of {source, target} (source env)."""
    ingress: DataPaths = ()
    """Prefixes to fetch: prefix=directory, comma-separated, or a JSON list of {source, target} (source env)."""


class Settings(_Sources):
    """The effective settings. Each docstring's first line is the flag's help."""

    s3_scheme: Literal["https", "http"] = "https"
    """Scheme of the endpoint; http sends everything readable on the wire."""
    s3_engine: Literal["auto", "s3fs", "obstore"] = "auto"
    """Library that speaks to the bucket; auto is obstore for most requests and s3fs for what it does not do."""
    watcher: Literal["auto", "inotify", "watchfiles", "off"] = "auto"
    """Where file events come from: auto is inotify where the kernel has it; off leaves only the sweep."""
    sweep_interval_s: Number = Field(default=15.0, ge=1, le=3600)
    """Seconds between sweeps, the safety net under events and the ingress poll. 15 is what devices are used to."""
    sweep_cpu_share: Number = Field(default=0.05, ge=0.001, le=1)
    """Share of one core that the sweeps of a target may take; above it they come less often, while events arrive."""
    debounce_quiet_s: Number = Field(default=0.5, ge=0.01, le=60)
    """Seconds a path must stay silent before it is read. Above the writers' flush gap, below human notice."""
    debounce_ceiling_s: Number = Field(default=2.0, ge=0.01, le=600)
    """Seconds after which a path that never falls silent is looked at all the same."""
    drain_timeout_s: Number = Field(default=20.0, ge=0, le=3600)
    """Seconds for sending what is settled after SIGTERM. Below the usual grace period of 30 s."""
    transfers: Count = Field(default=16, ge=1, le=256)
    """Most files moved at a time; it is fewer while the store is slow or asks for less."""
    transfer_memory_bytes: Count = Field(default=64 * _MIB, ge=5 * _MIB, le=64 * 1024 * _MIB)
    """Bytes of bodies in flight, over all transfers."""
    part_size_bytes: Count = Field(default=8 * _MIB, ge=5 * _MIB, le=5 * 1024 * _MIB)
    """Bytes of a multipart part; S3 takes 5 MiB to 5 GiB."""
    resume_after_s: Number = Field(default=30.0, ge=0, le=_DAY_S)
    """Uploads that would last longer than so many seconds go in recorded parts, so that a restart goes on."""
    bandwidth: TimetableText = Timetable()
    """Caps, up:down, by local time, as in mon-fri 08:00-18:00 1MiB/s:8MiB/s, else unlimited; empty is unlimited.

    Local time is that of the device, or of TZ. Below 1 KiB/s is refused: it would stand still in silence.
    """
    data_budget: AllowanceText = Allowance()
    """Bytes that may move in any such period, both ways together, as in 10GiB/30d or 500MB/12h; empty is unlimited.

    Counted by whole hours, with the bytes of attempts that failed, because a metered link charges them.
    """
    order: Order = "oldest"
    """Which of a target's waiting files go first; pattern is by order_patterns, then the oldest."""
    order_patterns: Patterns = ()
    """Globs of files, the most urgent first; files that fit none come last (order pattern)."""
    priority: Priority = 0
    """A target's files go before those of targets with a lower priority; for target_options."""
    connect_timeout_s: Number = Field(default=5.0, ge=0.1, le=300)
    """Seconds for opening a connection to the endpoint."""
    read_timeout_s: Number = Field(default=30.0, ge=0.1, le=3600)
    """Seconds without a byte after which a connection is given up."""
    min_rate_bytes_s: Count = Field(default=4096, ge=0, le=1024 * _MIB)
    """Bytes a second below which, on average, a transfer is cut and retried; 0 is never."""
    retry_max_s: Number = Field(default=60.0, ge=1, le=_DAY_S)
    """Longest pause in seconds between two attempts at what may soon succeed."""
    parked_retry_s: Number = Field(default=300.0, ge=1, le=_DAY_S)
    """Seconds between attempts at what a person must mend first."""
    open_files: Literal["wait", "snapshot"] = "wait"
    """A file that a writer holds open: wait until it is closed, or send what is there."""
    open_file_ceiling_s: Number = Field(default=60.0, ge=0, le=_DAY_S)
    """Seconds to wait for an open file before what is there is sent (open_files snapshot)."""
    hard_links: Literal["refuse", "allow"] = "refuse"
    """Files with several names (egress); one of them may lie outside the export."""
    egress_barrier: FileName = ""
    """Name of a file, `_SUCCESS` say, that is sent once all else in and beneath its directory is there (egress)."""
    delete_after_upload: bool = False
    """Delete a file from the device once the store has confirmed exactly its content (egress)."""
    restore_deleted: bool = True
    """Fetch a file again that the workload has deleted (ingress)."""
    ingress_marker: MarkerName = ""
    """Object beneath the prefix that its writers renew last; while it is unchanged no poll lists (ingress).

    One request a poll, whatever the size of the prefix. Its new version must have other bytes, or another second.
    """
    ingress_audit_s: AuditInterval = 3600.0
    """Most seconds without a listing of a prefix whose marker is unchanged (ingress)."""
    ingress_publish: IngressPublish = "files"
    """Files appear one by one, or as one generation that the marker lists, in <directory>/current (ingress)."""
    free_space_floor_bytes: Count = Field(default=100 * _MIB, ge=0)
    """Bytes that ingress leaves free on the device."""
    quota_bytes: Count = Field(default=0, ge=0)
    """Most bytes that ingress may hold in one target; 0 is no limit."""
    include: Patterns = ()
    """Globs of the files to take, comma-separated or a JSON list; empty takes all."""
    exclude: Patterns = ()
    """Globs of the files to leave out, comma-separated or a JSON list."""
    target_options: TargetPatches = Field(default={})
    """Options by pattern of workload/direction/prefix, as a mapping: YAML or JSON."""
    http_listen: ListenAddress = "127.0.0.1:9477"
    """host:port of /metrics, /healthz, /readyz and the page; empty is off. Loopback, because it has no login."""
    notifications: bool = False
    """Take S3 event notifications, as POST /notify, so that ingress need not wait for its poll."""
    notifications_token: Token = SecretStr("")
    """What senders of notifications have to show, as bearer token or password; better from a file."""
    ready_max_age_s: Number = Field(default=60.0, ge=1, le=_DAY_S)
    """Seconds that a target's last success may lie back before /readyz says no. Four sweeps."""
    log_level: LogLevel = "info"
    """Least severe messages to log."""
    log_format: Literal["auto", "text", "json"] = "auto"
    """Form of the log; auto is text on a terminal, else JSON."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing but arguments: `load` brings sources that know their origin and refuse unknown words."""
        return (init_settings,)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.debounce_quiet_s > self.debounce_ceiling_s:
            raise ValueError("debounce_quiet_s is above debounce_ceiling_s")
        if self.part_size_bytes > self.transfer_memory_bytes:
            raise ValueError("part_size_bytes is above transfer_memory_bytes, so no part could ever be sent")
        if self.state_dir.is_relative_to(self.volumes_dir or self.export_dir):
            raise ValueError("state_dir lies in the export, so the journal would replicate itself")
        if self.source != "env" and (self.egress or self.ingress):
            raise ValueError(f"egress and ingress are only read with source env, but source is {self.source}")
        if self.source == "edge-api" and not (self.edge_api_url and self.device):
            raise ValueError("source edge-api needs edge_api_url and device")
        if self.notifications and not self.notifications_token.get_secret_value():
            raise ValueError("notifications needs notifications_token, or anybody could send some")
        if self.notifications and not self.http_listen:
            raise ValueError("notifications needs http_listen, where they are taken")
        if self.order_patterns and "pattern" not in {self.order, *(one.order for one in self.target_options.values())}:
            raise ValueError("order_patterns is only read with order pattern, but no order is pattern")
        return self


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting as the command line knows it."""

    name: str
    option: str
    help: str
    default: str

    @property
    def variable(self) -> str:
        return _PREFIX + self.name.upper()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Effective settings, and for each field who said so, for people."""

    settings: Settings
    origins: dict[str, str]
    flags: Mapping[str, str]
    """What the command line said, for reading everything once more while the program runs."""


def text_of(value: object) -> str:
    """A setting's value in the form that flag and environment take."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return str(value).removesuffix(".0")
        case dict():
            patches = {pattern: patch.model_dump(exclude_unset=True) for pattern, patch in value.items()}
            return json.dumps(patches) if patches else ""
        case tuple() if any(isinstance(item, DataPath) for item in value):
            return json.dumps([item.model_dump() for item in value])
        case tuple():
            return json.dumps(value) if value else ""
        case _:
            return str(value)


FLAGS: tuple[Flag, ...] = tuple(
    Flag(
        name=name,
        option="--" + name.replace("_", "-"),
        help=(field.description or "").split("\n")[0],
        default=text_of(field.default),
    )
    for name, field in Settings.model_fields.items()
)

_BY_NAME = {flag.name: flag for flag in FLAGS}


def load(flags: Mapping[str, str], environ: Mapping[str, str]) -> Loaded:
    """The effective settings. `flags` by field name; of `environ` only REPLICATOR_* is read.

    Raises ConfigError; nothing else, whatever the words are.
    """
    said = [{name: _from_flag(name, value) for name, value in flags.items()}, _from_environ(environ)]
    path, _ = ChainMap(*said).get("config", ("", ""))
    said.append(_from_file(Path(path)) if path else {})
    origins = {name: ChainMap(*said).get(name, ("", "default"))[1] for name in _BY_NAME}
    try:
        settings = Settings(_build_sources=(tuple(_Said(words) for words in said), {}))
    except ValidationError as exc:
        field, problem = explain(exc)
        name = re.split(r"[.\[]", field)[0]
        if name not in _BY_NAME:
            raise ConfigError(where="settings", problem=problem, fix="Change one of the settings named") from None
        fix = f"{_BY_NAME[name].option}: {_BY_NAME[name].help}"
        raise ConfigError(where=origins[name] + field.removeprefix(name), problem=problem, fix=fix) from None
    return Loaded(settings, origins, flags)


_Word = tuple[Any, str]
"""A value and its origin."""


class _Said(PydanticBaseSettingsSource):
    """The words of one origin as a source of pydantic-settings, where the first source that knows a field wins."""

    def __init__(self, words: Mapping[str, _Word]) -> None:
        super().__init__(Settings)
        self._values = {name: value for name, (value, _) in words.items()}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


def _from_flag(name: str, value: str) -> _Word:
    if name not in _BY_NAME:
        raise _unknown(f"flag {name}", word=name, known=list(_BY_NAME))
    return value, f"flag {_BY_NAME[name].option}"


def _from_environ(environ: Mapping[str, str]) -> dict[str, _Word]:
    words: dict[str, _Word] = {}
    for flag in FLAGS:
        variable, from_file = flag.variable, f"{flag.variable}_FILE"
        is_file = bool(environ.get(from_file)) and flag.name != "config"
        if is_file and variable in environ:
            fix = "Keep one of them"
            raise ConfigError(where=f"environment {variable}", problem=f"{from_file} is set as well", fix=fix)
        if is_file:
            words[flag.name] = read_text(Path(environ[from_file])).rstrip("\r\n"), f"environment {from_file}"
        elif variable in environ:
            words[flag.name] = environ[variable], f"environment {variable}"
    known = [flag.variable for flag in FLAGS]
    legal = {*known, *(f"{variable}_FILE" for variable in known)} - {f"{_PREFIX}CONFIG_FILE"}
    for variable, value in environ.items():
        if variable.startswith(_PREFIX) and variable not in legal and not _is_service_link(variable, value):
            raise _unknown(f"environment {variable}", word=variable, known=known)
    return words


def _is_service_link(variable: str, value: str) -> bool:
    # REPLICATOR_X_PORT may also be somebody's own misspelt setting: the value decides.
    is_url = value.startswith(("tcp://", "udp://", "sctp://"))
    return _SERVICE_WORD.fullmatch(variable) is not None or (is_url and _SERVICE_URL.fullmatch(variable) is not None)


def _from_file(path: Path) -> dict[str, _Word]:
    where = f"file {path}"
    documents = parse_yaml(read_text(path), where=where)
    document = documents[0] if documents else None
    if len(documents) > 1 or not isinstance(document, dict | None):
        fix = "Write one mapping of settings, such as `sweep_interval_s: 15`"
        raise ConfigError(where=where, problem="is not one YAML mapping", fix=fix)
    words: dict[str, _Word] = {}
    known = [name for name in _BY_NAME if name != "config"]
    for name, value in (document or {}).items():
        if name not in known:
            raise _unknown(f"{where}: {name}", word=str(name), known=known)
        if value is not None:
            words[name] = value, f"{where}: {name}"
    return words


def _unknown(where: str, *, word: str, known: list[str]) -> ConfigError:
    problem = f"there is no such setting{did_you_mean(word, known)}"
    return ConfigError(where=where, problem=problem, fix="`replicator settings` lists all of them")
