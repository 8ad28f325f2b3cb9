"""What `--json` prints, where no other room says so already: `status` and `explain` have theirs in `observe`.

A contract: within a major version fields are added, and none is renamed, taken away or given another meaning.
docs/json.md describes every field for those who read it. Every string is in the escaped form of `observe.words`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.config.settings import FLAGS, Loaded, text_of
from replicator.model import Direction, Target
from replicator.observe import words

if TYPE_CHECKING:
    from replicator.once import Step
    from replicator.verify import Comparison


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """`sync --dry-run`: what would be done about one path."""

    target: str
    action: str
    """`copy`, `check` (compare first), `adopt`, `forget`, `leave` or `stray`."""
    relpath: str
    size: int
    """Bytes that it has where it would come from."""


@dataclass(frozen=True, slots=True)
class ComparedTarget:
    """`verify`: one target's two sides."""

    target: str
    equal: int
    """Files that are the same on both sides."""
    differences: Mapping[str, str]
    """Each path that is not, and what is different, one sentence."""


@dataclass(frozen=True, slots=True)
class MappedTarget:
    """`targets`: what is mapped to what."""

    id: str
    direction: Direction
    path: str
    url: str
    endpoint: str
    storage: str
    """Who named the bucket."""
    origin: str
    """Who asked for the mapping."""

    @property
    def lines(self) -> tuple[str, str]:
        """For people."""
        arrow = "->" if self.direction is Direction.EGRESS else "<-"
        return (
            f"{self.path} {arrow} {self.url} at {self.endpoint}",
            f"    {self.id}, from {self.origin}; storage from {self.storage}",
        )


@dataclass(frozen=True, slots=True)
class SettingInForce:
    """`settings`: one value, and who said so."""

    value: str
    origin: str


def planned(step: "Step") -> PlannedStep:
    return PlannedStep(step.target.id, step.action.value, step.relpath, step.size)


def compared(result: "Comparison") -> ComparedTarget:
    differences = {item.relpath: item.problem for item in result.differences}
    return ComparedTarget(result.target.id, result.equal, differences)


def mapped(target: Target) -> MappedTarget:
    from replicator.report import path_of, url_of  # reaches all that runs, which `settings` has no need of

    storage = target.storage
    return MappedTarget(
        id=target.id,
        direction=target.direction,
        path=path_of(target),
        url=url_of(target),
        endpoint=storage.endpoint,
        storage=storage.origin,
        origin=target.origin,
    )


def in_force(loaded: Loaded) -> dict[str, SettingInForce]:
    """Every setting by its name, secrets masked."""
    values = {flag.name: text_of(getattr(loaded.settings, flag.name)) for flag in FLAGS}
    return {name: SettingInForce(value, loaded.origins[name]) for name, value in values.items()}


def plain(answer: Any) -> Any:
    """An answer as `json.dumps` takes it, every string escaped."""
    match answer:
        case str():
            return words.escape(str(answer))
        case Mapping():
            return {words.escape(name): plain(value) for name, value in answer.items()}
        case Sequence():
            return [plain(value) for value in answer]
        case int() | float() | None:
            return answer
        case _:
            return {name: plain(getattr(answer, name)) for name in answer.__dataclass_fields__}
