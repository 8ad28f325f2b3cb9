"""Builds the wheel and the sdist of this tree into dist/, and looks at both before anybody installs them.

The sdist is made twice and has to have the same bytes; the wheel is made of the tree and of the sdist, and has to be
the same as well. Then contents and metadata are compared with the tree. `make package` goes on to install the wheel.

Exit codes: 0 both are as they should be, 1 something is not, which is said.
"""

import base64
import csv
import email
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

from trove_classifiers import classifiers as CLASSIFIERS  # noqa: N812

ROOT = Path(__file__).parents[1]
PACKAGE = "replicator"
INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
ADDED = {"PKG-INFO", ".gitignore", "LICENSE", "pyproject.toml"}
"""What an sdist has without being told to."""
NEVER = re.compile(r"(^|/)(__pycache__|tests|\.[a-z_]*(cache|venv)[^/]*|build|dist)(/|$)|\.(pyc|env\.local|db)$")


def build(kind: str, tree: Path, into: Path) -> Path:
    """The wheel or sdist of `tree`, by the toolchain of the hash lock that is installed here."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(into)]
    environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the {kind} cannot be built:\n{done.stdout}{done.stderr}")
    (made,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def contents(package: Path) -> dict[str, bytes]:
    """The files in it by name; of an sdist without its top directory."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(package) as sdist:
        files = {member.name: sdist.extractfile(member) for member in sdist.getmembers()}
        return {name.partition("/")[2]: file.read() for name, file in files.items() if file}


def tracked(tree: Path) -> dict[str, bytes]:
    """The files that are, or would be, under version control; outside of a checkout every file that is no cache."""
    git = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(git, capture_output=True, text=True, check=False) if (tree / ".git").exists() else None
    if done and done.returncode == 0:
        names = [name for name in done.stdout.split("\0") if (tree / name).is_file()]
    else:
        names = [path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()]
    return {name: (tree / name).read_bytes() for name in names if not NEVER.search(name)}


def flaws_of_wheel(files: dict[str, bytes], tree: dict[str, bytes], version: str) -> Iterator[str]:
    """In what a wheel differs from the package in `tree` with its record of installation beside it."""
    info = f"{PACKAGE}-{version}.dist-info/"
    wanted = {name: body for name, body in tree.items() if name.startswith(f"{PACKAGE}/")}
    yield from _differences({name: body for name, body in files.items() if not name.startswith(info)}, wanted)
    if (found := {name.removeprefix(info) for name in files if name.startswith(info)}) != INFO:
        yield f"{info} has {sorted(found)}"
        return
    record = {name: digest for name, digest, _ in csv.reader(files[f"{info}RECORD"].decode().splitlines())}
    for name, body in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
        if record.pop(name, None) != ("" if name == f"{info}RECORD" else f"sha256={digest}"):
            yield f"{name}: RECORD says otherwise"
    yield from (f"{name}: in RECORD only" for name in record)
    if files[f"{info}entry_points.txt"].split() != b"[console_scripts] replicator = replicator.cli:main".split():
        yield f"{info}entry_points.txt has another command than replicator"


def flaws_of_sdist(files: dict[str, bytes], tree: dict[str, bytes], includes: list[str]) -> Iterator[str]:
    """In what an sdist differs from the parts of `tree` that are named for it."""
    tops = tuple(f"{top.lstrip('/')}" for top in includes)
    wanted = {
        name: body for name, body in tree.items() if name in tops or name.startswith(tuple(f"{top}/" for top in tops))
    }
    yield from _differences(files, wanted | {name: files[name] for name in ADDED & files.keys()})
    for name, text in ((name, body.decode()) for name, body in files.items() if name == "README.md"):
        links = (link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link)
        yield from (
            f"{name} leads to {link}, which is left out"
            for link in links
            if not any(file == link or file.startswith(f"{link.rstrip('/')}/") for file in files)
        )


def flaws_of_metadata(metadata: Message, project: dict) -> Iterator[str]:  # type: ignore[type-arg]
    """What an index would refuse, or a person would miss."""
    optional = project["optional-dependencies"]
    wanted = {
        "Name": [project["name"]],
        "Version": [project["version"]],
        "Summary": [project["description"]],
        "License-Expression": [project["license"]],
        "License-File": project["license-files"],
        "Requires-Python": [project["requires-python"]],
        "Description-Content-Type": ["text/markdown"],
        "Classifier": project["classifiers"],
        "Provides-Extra": sorted(optional),
    }
    for field, values in wanted.items():
        if sorted(metadata.get_all(field, [])) != sorted(values):
            yield f"{field} is {metadata.get_all(field)}, not {values}"
    count = len(project["dependencies"]) + sum(map(len, optional.values()))
    if len(metadata.get_all("Requires-Dist", [])) != count:
        yield f"Requires-Dist is not what {count} requirements of pyproject.toml are"
    yield from (f"Classifier {name} is unknown" for name in project["classifiers"] if name not in CLASSIFIERS)
    if not str(metadata.get_payload()).lstrip().startswith("# replicator"):
        yield "the description is not README.md"


def _differences(found: dict[str, bytes], wanted: dict[str, bytes]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in sorted(wanted.keys() - found.keys()))
    yield from (f"{name} does not belong there" for name in sorted(found.keys() - wanted.keys()))
    yield from (f"{name} is another than in the tree" for name in found if found[name] != wanted.get(name, found[name]))
    yield from (f"{name} is a cache or a test" for name in found if NEVER.search(name))


def flaws(tree: Path, into: Path) -> Iterator[str]:
    """Build both into `into`; what is wrong with them."""
    settings = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    project, version = settings["project"], settings["project"]["version"]
    sdist, wheel = build("sdist", tree, into), build("wheel", tree, into)
    with tempfile.TemporaryDirectory() as name:
        again = Path(name)
        if build("sdist", tree, again).read_bytes() != sdist.read_bytes():
            yield "the sdist has other bytes each time"
        with tarfile.open(sdist) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # as an argument it came with 3.11.4
            archive.extractall(again)  # noqa: S202 - made a moment ago, by us
        if build("wheel", again / f"{PACKAGE}-{version}", again).read_bytes() != wheel.read_bytes():
            yield "the wheel that is made of the sdist has other bytes than the one made of the tree"
    known, files = tracked(tree), contents(wheel)
    yield from flaws_of_wheel(files, known, version)
    yield from flaws_of_sdist(contents(sdist), known, settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    metadata = files.get(f"{PACKAGE}-{version}.dist-info/METADATA", b"").decode()
    yield from flaws_of_metadata(email.message_from_string(metadata), project)


if __name__ == "__main__":
    dist = ROOT / "dist"
    for old in (*dist.glob("*.whl"), *dist.glob("*.tar.gz")):
        old.unlink()
    if found := list(flaws(ROOT, dist)):
        sys.exit("\n".join(["These packages are not as they should be:", *found]))
    for made in sorted(dist.glob("replicator-*")):
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        sys.stdout.write(f"{digest}  dist/{made.name}  {made.stat().st_size / 1024:.0f} KiB\n")
