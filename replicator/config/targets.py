"""Data paths become targets, or a ConfigError: nothing unsafe and nothing that loops gets past this door.

Here end the manifest's words `source` and `target`, which swap meaning with the direction. Pure.
Paths are normalised ('.', './a', 'a//b', 'a/'), never repaired: '..' and absolute paths are refused.
"""

import fnmatch
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from replicator.config.manifests import DataPath
from replicator.config.settings import Settings
from replicator.errors import ConfigError
from replicator.model import INCOMING_DIR, OWN_DIR, Direction, Prefix, Storage, Target, TargetOptions

MAX_TARGETS = 512
"""Far above any device; each target watches a tree, and every pair is compared."""

_MAX_PREFIX_BYTES = 900
"""S3 keys have at most 1,024 bytes; the rest is for file names."""
_MAX_NAME_BYTES = 255
"""NAME_MAX of Linux file systems."""
_MAX_SUBDIR_BYTES = 2048
"""Half of PATH_MAX; the rest is for the export's own path and the files."""


@dataclass(frozen=True, slots=True)
class WorkloadPaths:
    """One workload's mappings, and where each list stands ('telemetry.yaml: spec.data.egress')."""

    workload: str
    egress: tuple[DataPath, ...]
    ingress: tuple[DataPath, ...]
    egress_where: str
    ingress_where: str


def served(workloads: Sequence[WorkloadPaths], settings: Settings) -> Sequence[WorkloadPaths]:
    """The workloads this process serves: the one that settings name, the only one, or in device mode all."""
    names = [one.workload for one in workloads]
    for name in names:
        _check_workload_name(name)
    known = ", ".join(sorted(names)) or "none"
    if len(set(names)) < len(names):
        problem = f"two workloads have one name, among {known}"
        raise ConfigError(where="workload", problem=problem, fix="Rename one; the name is its directory")
    if settings.workload:
        chosen = [one for one in workloads if one.workload == settings.workload]
        if not chosen:
            problem = f"there is no workload {settings.workload!r} for this device"
            raise ConfigError(where="workload", problem=problem, fix=f"Set REPLICATOR_WORKLOAD to one of: {known}")
        return chosen
    if settings.volumes_dir is None and len(workloads) != 1:
        problem = f"{len(workloads)} workloads could be meant, but a sidecar serves one"
        fix = f"Set REPLICATOR_WORKLOAD to one of: {known}; or set REPLICATOR_VOLUMES_DIR to serve all of a device"
        raise ConfigError(where="workload", problem=problem, fix=fix)
    return workloads


def build(workloads: Sequence[WorkloadPaths], *, storage: Storage, settings: Settings) -> tuple[Target, ...]:
    """Every mapping as a Target, checked alone and against every other. Raises ConfigError for the first fault."""
    targets: list[Target] = []
    for one in workloads:
        root = settings.export_dir if settings.volumes_dir is None else settings.volumes_dir / one.workload
        targets += _targets(one, root=root, storage=storage)
    if len(targets) > MAX_TARGETS:
        problem = f"{len(targets)} mappings are more than {MAX_TARGETS}"
        raise ConfigError(where=targets[-1].origin, problem=problem, fix="Map common parents instead")
    for first, second in itertools.combinations(targets, 2):
        _check_pair(first, second)
    return _with_options(targets, settings)


def _targets(one: WorkloadPaths, *, root: Path, storage: Storage) -> list[Target]:
    _check_workload_name(one.workload)
    found = []
    for direction, paths, where in (
        (Direction.EGRESS, one.egress, one.egress_where),
        (Direction.INGRESS, one.ingress, one.ingress_where),
    ):
        for number, path in enumerate(paths):
            origin = f"{where}[{number}]"
            source = _segments(path.source, where=f"{origin}.source")
            target = _segments(path.target, where=f"{origin}.target")
            is_egress = direction is Direction.EGRESS
            subdir, prefix = (source, target) if is_egress else (target, source)
            _check_lengths(subdir, prefix, origin=origin, is_egress=is_egress)
            found.append(
                Target(
                    workload=one.workload,
                    direction=direction,
                    root=str(root),
                    subdir="/".join(subdir),
                    prefix=Prefix("".join(f"{name}/" for name in prefix)),
                    storage=storage,
                    origin=origin,
                )
            )
    return found


def _check_workload_name(name: str) -> None:
    if (
        name in ("", ".", "..", OWN_DIR)
        or "/" in name
        or not name.isprintable()
        or len(name.encode()) > _MAX_NAME_BYTES
    ):
        fix = "Use a plain name; it is a directory beneath the volumes directory and part of every target's id"
        raise ConfigError(where="workload", problem=f"{name!r} cannot be a workload's name", fix=fix)


def _segments(text: str, *, where: str) -> list[str]:
    names = [name for name in text.split("/") if name not in ("", ".")]
    if not text:
        raise ConfigError(where=where, problem="is empty", fix="Write '.' for the whole export or bucket")
    if not text.isprintable():
        # Not printable are control characters, NUL among them, and the surrogates of a text that is not UTF-8.
        problem = f"{text!r} holds characters that do not print"
        raise ConfigError(where=where, problem=problem, fix="Rename the directory or prefix")
    if text.startswith("/"):
        relative = "/".join(names[1:] if names[:1] == ["export"] else names) or "."
        raise ConfigError(where=where, problem=f"{text!r} is absolute", fix=f"Write {relative!r}: paths are relative")
    if ".." in names:
        raise ConfigError(where=where, problem=f"{text!r} leads upwards", fix="Write it without '..'")
    if OWN_DIR in names:
        problem = f"{text!r} holds {OWN_DIR!r}, which is our own directory"
        raise ConfigError(where=where, problem=problem, fix="Map another directory")
    return names


def _check_lengths(subdir: list[str], prefix: list[str], *, origin: str, is_egress: bool) -> None:
    subdir_field, prefix_field = ("source", "target") if is_egress else ("target", "source")
    if max((len(name.encode()) for name in subdir), default=0) > _MAX_NAME_BYTES or (
        len("/".join(subdir).encode()) > _MAX_SUBDIR_BYTES
    ):
        problem = f"is longer than {_MAX_NAME_BYTES} bytes a name or {_MAX_SUBDIR_BYTES} bytes in all"
        raise ConfigError(where=f"{origin}.{subdir_field}", problem=problem, fix="Map a shorter path")
    if len("/".join(prefix).encode()) >= _MAX_PREFIX_BYTES:
        problem = f"is longer than {_MAX_PREFIX_BYTES} bytes, which leaves no room for file names in a key"
        raise ConfigError(where=f"{origin}.{prefix_field}", problem=problem, fix="Use a shorter prefix")


def _check_pair(first: Target, second: Target) -> None:
    if first.direction is not second.direction:
        egress, ingress = sorted((first, second), key=lambda target: target.direction is Direction.INGRESS)
        _check_loop(egress, ingress)
    elif first.direction is Direction.EGRESS:
        _check_two_egress(first, second)
    else:
        _check_two_ingress(first, second)


def _check_loop(egress: Target, ingress: Target) -> None:
    """Refuse an egress into what an ingress reads: a loop through the device needs at least one such pair."""
    if not _are_nested(_prefix(egress), _prefix(ingress)):
        return
    problem = f"sends to {_shown(egress)!r}, which {ingress.origin} fetches from as {_shown(ingress)!r}"
    if _are_nested(_directory(egress), _directory(ingress)):
        problem += " into the same directory: a loop"
    raise ConfigError(where=egress.origin, problem=problem, fix="Give the egress a prefix that no ingress reads")


def _check_two_egress(first: Target, second: Target) -> None:
    if not _are_nested(_prefix(first), _prefix(second)):
        return
    outer, inner = sorted((first, second), key=lambda target: len(_prefix(target)))
    beyond = _prefix(inner)[len(_prefix(outer)) :]
    # One file, one key: nested prefixes are harmless only when the directories nest in just the same way.
    if _directory(inner) == _directory(outer) + beyond and beyond:
        return
    problem = f"writes {_shown(second)!r}, into which {first.origin} writes {_shown(first)!r}"
    if first.prefix == second.prefix and _directory(first) == _directory(second):
        problem = f"is the same mapping as {first.origin}"
    raise ConfigError(where=second.origin, problem=problem, fix="Give each a prefix of its own, or remove one")


def _check_two_ingress(first: Target, second: Target) -> None:
    if _are_nested(_directory(first), _directory(second)):
        problem = f"fetches into {second.subdir or '.'!r}, which {first.origin} fills as {first.subdir or '.'!r}"
        if first.prefix == second.prefix and first.subdir == second.subdir:
            problem = f"is the same mapping as {first.origin}"
        raise ConfigError(where=second.origin, problem=problem, fix="Give each a directory of its own, or remove one")
    if first.id == second.id:
        problem = f"fetches {_shown(second)!r} a second time, after {first.origin}"
        raise ConfigError(
            where=second.origin, problem=problem, fix="Map a prefix once a workload; link the directories"
        )


def _prefix(target: Target) -> tuple[str, ...]:
    return tuple(target.prefix.text.split("/")[:-1])


def _directory(target: Target) -> tuple[str, ...]:
    return (target.root, *Path(target.subdir).parts)


def _are_nested(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one is the other or lies in it, name by name: `data` and `data2` are strangers."""
    return all(left == right for left, right in zip(one, other, strict=False))


def _shown(target: Target) -> str:
    return target.prefix.text or "."


def _with_options(targets: Sequence[Target], settings: Settings) -> tuple[Target, ...]:
    common = TargetOptions(
        include=settings.include,
        exclude=settings.exclude,
        hard_links=settings.hard_links,
        open_files=settings.open_files,
        restore_deleted=settings.restore_deleted,
        ingress_marker=settings.ingress_marker,
        ingress_audit_s=settings.ingress_audit_s,
        ingress_publish=settings.ingress_publish,
        quota_bytes=settings.quota_bytes,
        order=settings.order,
        order_patterns=settings.order_patterns,
        priority=settings.priority,
        egress_barrier=settings.egress_barrier,
        delete_after_upload=settings.delete_after_upload,
    )
    options = dict.fromkeys((target.id for target in targets), common)
    for pattern, patch in settings.target_options.items():
        fitting = [id_ for id_ in options if fnmatch.fnmatchcase(id_, pattern)]
        if targets and not fitting:
            known = ", ".join(options)
            raise ConfigError(where=f"target_options: {pattern}", problem="fits no target", fix=f"There are: {known}")
        for id_ in fitting:
            options[id_] = replace(options[id_], **patch.model_dump(exclude_unset=True, exclude_none=True))
    for id_, chosen in options.items():
        if chosen.order == "pattern" and not chosen.order_patterns:
            fix = "Set REPLICATOR_ORDER_PATTERNS, or order_patterns in its target_options"
            raise ConfigError(where=f"order of {id_}", problem="is pattern, but there are no patterns", fix=fix)
    return _with_generations([replace(target, options=options[target.id]) for target in targets])


def _with_generations(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets that publish generations, with the directory in which their files land; the others as they are."""
    for target in targets:
        if not target.has_generations:
            continue
        if not target.options.ingress_marker:
            fix = "Set REPLICATOR_INGRESS_MARKER, or ingress_marker in its target_options: it names the files of a set"
            problem = "is generation, but there is no marker"
            raise ConfigError(where=f"ingress_publish of {target.id}", problem=problem, fix=fix)
        for other in targets:
            if other.direction is Direction.EGRESS and _are_nested(_directory(target), _directory(other)):
                problem = f"sends {other.subdir or '.'!r}, where {target.origin} publishes generations"
                fix = "Give the egress a directory of its own, or set ingress_publish to files for the ingress"
                raise ConfigError(where=other.origin, problem=problem, fix=fix)
    return tuple(
        replace(target, subdir="/".join(filter(None, (target.subdir, INCOMING_DIR))))
        if target.has_generations
        else target
        for target in targets
    )
