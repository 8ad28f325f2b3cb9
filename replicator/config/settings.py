"""Settings: every knob of the program, and where its value came from.

Precedence: flag > environment `REPLICATOR_*` > the YAML file named by `config` > default. One field is `--kebab-name`,
`REPLICATOR_NAME` and a YAML key; `REPLICATOR_NAME_FILE` reads the value from a file. Holds no secrets: the words of a
bucket are not settings. Anything unknown or out of bounds is one ConfigError.
"""

import json
import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from replicator.config.documents import parse_yaml, read_text
from replicator.config.manifests import DataPath
from replicator.config.shapes import Shape, Strict, did_you_mean, explain
from replicator.errors import ConfigError

_PREFIX = "REPLICATOR_"
_MIB = 1024 * 1024
_DAY_S = 86400

_LISTEN = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")

# Kubernetes gives every Pod these for each Service, so for one that is called replicator or replicator-x too.
_SERVICE_WORD = re.compile(
    r"REPLICATOR_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR))"
)
_SERVICE_URL = re.compile(r"REPLICATOR_([A-Z0-9_]+_)?PORT(_[0-9]+_(TCP|UDP|SCTP))?")


def _is_number(given: Any) -> Any:
    if isinstance(given, bool):
        raise ValueError("a yes or no stands where a number is needed")  # noqa: TRY004 -- pydantic translates ValueError
    return given


def _lower(given: Any) -> Any:
    return given.lower() if isinstance(given, str) else given


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None


def _none_if_empty(given: Any) -> Any:
    return None if given == "" else given


def _words(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    return _from_json(given) if given.lstrip().startswith("[") else [w.strip() for w in given.split(",") if w.strip()]


def _pairs(given: Any) -> Any:
    if not isinstance(given, str) or given.lstrip().startswith("["):
        return _words(given)
    pairs = []
    for word in _words(given):
        source, equals, target = word.partition("=")
        if not equals or "=" in target:
            raise ValueError("each mapping is source=target; for names with ',' or '=' use a JSON list")
        pairs.append({"source": source.strip(), "target": target.strip()})
    return pairs


def _options(given: Any) -> Any:
    if isinstance(given, str):
        return _from_json(given) if given.strip() else {}
    return given


def _is_directory_name(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts or path == Path("/") or not str(path).isprintable():
        raise ValueError("must be an absolute path beneath '/', without '..' or control characters")
    return path


def _is_pattern(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a pattern must not be empty or hold control characters")
    return text


def _is_listen_address(text: str) -> str:
    match = _LISTEN.fullmatch(text)
    if text and (match is None or int(match["port"]) > 65535):
        raise ValueError("must be host:port such as 127.0.0.1:9477, or empty")
    return text


Directory = Annotated[Path, AfterValidator(_is_directory_name)]
Number = Annotated[float, BeforeValidator(_is_number)]
Count = Annotated[int, BeforeValidator(_is_number)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_is_pattern)], ...], BeforeValidator(_words)]
DataPaths = Annotated[tuple[DataPath, ...], BeforeValidator(_pairs)]


class OptionsPatch(Strict):
    """What one `target_options` pattern changes; a field left out changes nothing."""

    include: Patterns | None = None
    exclude: Patterns | None = None
    hard_links: Literal["refuse", "allow"] | None = None
    open_files: Literal["wait", "snapshot"] | None = None
    restore_deleted: bool | None = None
    quota_bytes: Annotated[Count, Field(ge=0)] | None = None


class Settings(Shape, BaseSettings):
    """The effective settings. Each docstring's first line is the flag's help."""

    model_config = SettingsConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=False)

    config: Annotated[Path | None, BeforeValidator(_none_if_empty)] = None
    """YAML file with settings by their names."""
    source: Literal["env", "files"] = "env"
    """Where workloads and storage come from: these settings and the environment, or a directory of manifests."""
    manifests_dir: Directory = Path("/etc/replicator/manifests")
    """Directory of EdgeWorkload, EdgeDevice, ConfigMap and Secret YAML, and of mounted storage/ (source files)."""
    device: str = ""
    """Name of this EdgeDevice; empty means the only one (source files)."""
    workload: str = ""
    """Name of the one workload to serve; empty means the only one, or all in device mode."""
    export_dir: Directory = Path("/export")
    """The workload's export directory (sidecar mode)."""
    volumes_dir: Annotated[Directory | None, BeforeValidator(_none_if_empty)] = None
    """Directory with a subdirectory a workload; setting it turns device mode on."""
    state_dir: Directory = Path("/var/lib/replicator")
    """Directory of the journal; outside every export, or it would replicate itself."""
    egress: DataPaths = ()
    """Directories to send: directory=prefix, comma-separated, or a JSON list of {source, target} (source env)."""
    ingress: DataPaths = ()
    """Prefixes to fetch: prefix=directory, comma-separated, or a JSON list of {source, target} (source env)."""
    s3_scheme: Literal["https", "http"] = "https"
    """Scheme of the endpoint; http sends everything readable on the wire."""
    watcher: Literal["auto", "watchfiles", "off"] = "auto"
    """Where file events come from; off leaves only the sweep."""
    sweep_interval_s: Number = Field(default=15.0, ge=1, le=3600)
    """Seconds between sweeps, the safety net under events and the ingress poll. 15 is what devices are used to."""
    debounce_quiet_s: Number = Field(default=0.5, ge=0.01, le=60)
    """Seconds a path must stay silent before it is read. Above the writers' flush gap, below human notice."""
    debounce_ceiling_s: Number = Field(default=2.0, ge=0.01, le=600)
    """Seconds after which a path that never falls silent is looked at all the same."""
    drain_timeout_s: Number = Field(default=20.0, ge=0, le=3600)
    """Seconds for sending what is settled after SIGTERM. Below the usual grace period of 30 s."""
    transfers: Count = Field(default=16, ge=1, le=256)
    """Files moved at a time."""
    transfer_memory_bytes: Count = Field(default=64 * _MIB, ge=5 * _MIB, le=64 * 1024 * _MIB)
    """Bytes of bodies in flight, over all transfers."""
    part_size_bytes: Count = Field(default=8 * _MIB, ge=5 * _MIB, le=5 * 1024 * _MIB)
    """Bytes of a multipart part; S3 takes 5 MiB to 5 GiB."""
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
    restore_deleted: bool = True
    """Fetch a file again that the workload has deleted (ingress)."""
    free_space_floor_bytes: Count = Field(default=100 * _MIB, ge=0)
    """Bytes that ingress leaves free on the device."""
    quota_bytes: Count = Field(default=0, ge=0)
    """Most bytes that ingress may hold in one target; 0 is no limit."""
    include: Patterns = ()
    """Globs of the files to take, comma-separated or a JSON list; empty takes all."""
    exclude: Patterns = ()
    """Globs of the files to leave out, comma-separated or a JSON list."""
    target_options: Annotated[dict[str, OptionsPatch], BeforeValidator(_options)] = Field(default={})
    """Options by pattern of workload/direction/prefix, as a mapping: YAML or JSON."""
    http_listen: Annotated[str, AfterValidator(_is_listen_address)] = "127.0.0.1:9477"
    """host:port of /metrics, /healthz, /readyz and the page; empty is off. Loopback, because it has no login."""
    ready_max_age_s: Number = Field(default=60.0, ge=1, le=_DAY_S)
    """Seconds that a target's last success may lie back before /readyz says no. Four sweeps."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
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
        if self.source == "files" and (self.egress or self.ingress):
            raise ValueError("egress and ingress are only read with source env, but source is files")
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
    return Loaded(settings, origins)


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
