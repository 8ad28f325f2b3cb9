"""The Dockerfile as its stages and instructions, for tests that read it and for those that carry it out."""

import json
from dataclasses import dataclass, field
from pathlib import Path

DOCKERFILE = Path(__file__).parents[1] / "Dockerfile"


@dataclass
class Stage:
    """One FROM of the Dockerfile with its instructions in order."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [rest for instruction, rest in self.instructions if instruction == word]


def stages() -> list[Stage]:
    """Comments left out, continued lines joined, white space made one."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    found: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        elif word and found:
            found[-1].instructions.append((word, " ".join(rest.split())))
    return found


def exec_form(instruction: str) -> list[str]:
    """The words of a CMD, ENTRYPOINT, VOLUME or HEALTHCHECK in its JSON form."""
    return [str(word) for word in json.loads(instruction[instruction.index("[") :])]
