"""The image as its recipe makes it, out of what this machine has: no builder, no registry, no network.

Carries the Dockerfile out instruction by instruction, in a jail whose base image is this machine's own /usr and the
interpreter that runs the tests. Two things are not done as they are written: where pip would fetch the packages of a
lock, the same versions are taken from this environment; and nothing is compiled ahead. An instruction that is not known
here is an error, so recipe and test cannot drift apart.
"""

import fnmatch
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath
from string import Template

from packaging.requirements import Requirement

from tests.recipe import DOCKERFILE, exec_form, stages

ROOT = DOCKERFILE.parent
JAIL = Path(__file__).with_name("jail.py")
CANNOT = 77
PLACES = ("build", "etc", "export", "opt", "tmp", "tools", "var")
"""Where a step of the recipe may write."""
_INTERPRETER = Path(os.path.realpath(sys.executable)).parents[1]
_WITH_PIP = re.compile(r"python -m venv (?P<venv>/\S+)")
_FROM_LOCK = re.compile(r"(?P<pip>\S+)/bin/pip (--python (?P<python>\S+)/bin/python )?install .*-r (?P<lock>\S+)")


class Unavailable(Exception):
    """This machine cannot play the builder; the words say why."""


@dataclass
class Image:
    """A stage of the recipe: a root directory, what it sets, and what it says about running it."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    said: dict[str, str] = field(default_factory=dict)
    """The last of each instruction that only tells, such as USER."""

    def jail(self, uid: int, *mounts: str) -> tuple[str, ...]:
        """What has to stand before a command so that it runs in here: jail.py with its arguments."""
        new_root = self.root.with_name("new-root")
        new_root.mkdir(exist_ok=True)
        interpreter = () if _INTERPRETER.is_relative_to("/usr") else (f"{_INTERPRETER}:{_INTERPRETER}:ro",)
        return (sys.executable, str(JAIL), str(uid), str(new_root), *interpreter, *mounts, "--")

    def contained(self, export: Path) -> tuple[str, ...]:
        """The same for a container: as the image's user, on what the image holds and two volumes."""
        uid, state = int(self.said["USER"].partition(":")[0]), exec_form(self.said["VOLUME"])[0]
        # A fresh volume takes over what the image has at its place, owner and mode included.
        volumes = (f"{self.root}{state}:{state}", f"{export}:/export")
        return self.jail(uid, *(f"{self.root}/{name}:/{name}:ro" for name in ("etc", "opt")), *volumes)


def build(home: Path) -> Image:
    """The last stage of the recipe, made below `home`. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("it takes root to mount, and to make files of another user")
    if not (_INTERPRETER / "bin/python").exists():
        raise Unavailable(f"the base image's interpreter is called `python`; in {_INTERPRETER}/bin there is none")
    made: dict[str, Image] = {}
    image = None
    for number, stage in enumerate(stages()):
        image = made[stage.name] = _base(home / f"stage{number}" / "root")
        for word, rest in stage.instructions:
            _carry_out(image, word, rest, made)
    assert image
    return image


def _base(root: Path) -> Image:
    for name in PLACES:
        (root / name).mkdir(parents=True)
    shutil.copytree("/etc", root / "etc", symlinks=True, dirs_exist_ok=True, ignore=_special)
    (root / "tmp").chmod(0o1777)
    path = f"{_INTERPRETER}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return Image(root, {"PATH": path})


def _special(directory: str, names: list[str]) -> list[str]:
    paths = {name: os.path.join(directory, name) for name in names}
    return [name for name, path in paths.items() if not (os.path.isfile(path) or os.path.isdir(path))]


def _carry_out(image: Image, word: str, rest: str, made: dict[str, Image]) -> None:
    if word == "ENV":
        for name, value in (pair.split("=", 1) for pair in shlex.split(rest)):
            image.environment[name] = Template(value).substitute(image.environment)
    elif word == "WORKDIR":
        image.workdir = rest
    elif word == "COPY":
        _copy(image, shlex.split(rest), made)
    elif word == "RUN":
        for command in rest.split(" && "):
            _run(image, command)
    elif word in {"ARG", "CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "USER", "VOLUME"}:
        image.said[word] = rest
    else:
        raise AssertionError(f"{word}: the Dockerfile has an instruction that this test does not carry out yet")


def _copy(image: Image, words: list[str], made: dict[str, Image]) -> None:
    *sources, place = words
    top = ROOT
    if sources[0].startswith("--from="):
        top = made[sources.pop(0).removeprefix("--from=")].root
    base = image.root / PurePosixPath(image.workdir, place).as_posix().lstrip("/")
    for source in sources:
        found = top / source.lstrip("/")
        target = base / found.name if len(sources) > 1 or place.endswith("/") else base
        if found.is_dir():
            shutil.copytree(
                found, target, symlinks=True, copy_function=_taken, ignore=_not_sent if top == ROOT else None
            )
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, target)


def _not_sent(directory: str, names: list[str]) -> list[str]:
    """What .dockerignore keeps from the builder within a directory that it lets through."""
    rules = [line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().splitlines()]
    return [name for name in names if any(fnmatch.fnmatchcase(name, rule) for rule in rules if rule[:1] not in "!*#")]


def _run(image: Image, command: str) -> None:
    if match := _FROM_LOCK.fullmatch(command):
        venv = image.root / (match["python"] or match["pip"]).lstrip("/")
        (packages,) = venv.glob("lib/python3.*/site-packages")
        _install(ROOT / match["lock"], packages)
        return
    if match := _WITH_PIP.fullmatch(command):
        _run(image, f"{command} --without-pip")
        _unpack_pip(image.root / match["venv"].lstrip("/"), match["venv"])
        return
    mounts = [f"{image.root}/{name}:/{name}" for name in PLACES]
    inside = ("/bin/sh", "-ec", f"cd {shlex.quote(image.workdir)}; {command}")
    environ = image.environment | {"PIP_NO_COMPILE": "1"}
    done = subprocess.run([*image.jail(0, *mounts), *inside], env=environ, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT:
        raise Unavailable(done.stderr.strip())
    assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"


def _unpack_pip(root: Path, venv: str) -> None:
    """The pip that comes with the interpreter, into an environment that is `venv` inside."""
    (packages,) = root.glob("lib/python3.*/site-packages")
    bundled = sorted(Path(str(resources.files("ensurepip"))).glob("_bundled/pip-*.whl"))
    if not bundled:
        raise Unavailable("this interpreter comes without pip, and the base image's has one")
    with zipfile.ZipFile(bundled[-1]) as archive:
        archive.extractall(packages)
    script = root / "bin/pip"
    script.write_text(f"#!{venv}/bin/python\nfrom pip._internal.cli.main import main\nraise SystemExit(main())\n")
    script.chmod(0o755)


def _install(lock: Path, packages: Path) -> None:
    """Every package of a lock, in its version, as this environment has it."""
    for line in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        wanted = Requirement(line.partition(" --hash")[0])
        if wanted.marker and not wanted.marker.evaluate():
            continue
        found = importlib.metadata.distribution(wanted.name)
        assert found.version in wanted.specifier, (
            f"{wanted} is locked, {found.version} is installed. Run make .venv/.dev"
        )
        for file in found.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                _taken(str(file.locate()), str(target))


def _taken(source: str, target: str) -> str:
    """A second name for the file where that can be, for nothing in here writes into one; else a copy."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target
