"""One version everywhere, and a release that is cut whole or not at all."""

import shutil
import tomllib
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest

import replicator
from tests.scripts import script

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
TODAY = date(2031, 2, 3)


@pytest.fixture(scope="module")
def releases() -> ModuleType:
    """The script that `make release` runs."""
    return script("release")


@pytest.fixture
def tree(tmp_path) -> Path:
    """As much of the project as a release touches, with 1.0.0 released and something new since."""
    (tmp_path / "replicator").mkdir()
    for name in ("pyproject.toml", "replicator/__init__.py"):
        text = (ROOT / name).read_text(encoding="utf-8").replace(f'"{VERSION}"', '"1.0.0"')
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for path in tmp_path.glob("config/**/*.*"):
        path.write_text(path.read_text(encoding="utf-8").replace(f"replicator:{VERSION}", "replicator:1.0.0"))
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n### Fixed\n\n- A thing.\n\n## [1.0.0] - 2030-01-02\n\n- All of it.\n"
    )
    return tmp_path


def texts(tree: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_package_samples_and_code_name_one_version(releases):
    """The version of the package is that of the code and of the image in every sample; no file names another."""
    found = releases.versions(ROOT)

    assert {version for named in found.values() for version in named} == {VERSION, replicator.__version__}
    assert {Path(name).name for name in found} >= {
        "__init__.py",
        "device.yaml",
        "operator.yaml",
        "replicator.container",
    }


def test_newest_section_of_the_changelog_is_this_version(releases):
    """What is released is in the changelog under the version that the tree has; before the first release nothing is."""
    assert releases.released((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[:1] in ([], [VERSION])


def test_release_is_cut_in_every_place(releases, tree):
    """Each file that names the version names the new one, and what was unreleased has a dated section of its own."""
    before = releases.versions(tree)

    changed = releases.release(tree, "1.1.0", TODAY)

    assert set(changed) == {*before, "CHANGELOG.md"}
    assert releases.versions(tree) == {name: ["1.1.0"] * len(named) for name, named in before.items()}
    assert (tree / "CHANGELOG.md").read_text().split("\n\n") == [
        "# Changelog",
        "## [Unreleased]",
        "## [1.1.0] - 2031-02-03",
        "### Fixed",
        "- A thing.",
        "## [1.0.0] - 2030-01-02",
        "- All of it.\n",
    ]


def test_first_release_is_the_version_that_the_tree_has(releases, tree):
    """A version that was never released may be cut as it stands: then only the changelog changes."""
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n- All of it.\n")

    assert releases.release(tree, "1.0.0", TODAY) == ["CHANGELOG.md"]


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("", "is no version"),
        ("v1.1.0", "is no version"),
        ("1.1", "is no version"),
        ("1.01.0", "is no version"),
        ("1.1.0rc1", "is no version"),
        ("0.9.9", "is before 1.0.0"),
        ("1.0.0", "a section for 1.0.0 already"),
    ],
)
def test_release_that_is_none_changes_nothing(releases, tree, version, says):
    """What is no version, goes back, or was released already is refused with a reason, before a file is touched."""
    before = texts(tree)

    with pytest.raises(releases.Refused, match=says):
        releases.release(tree, version, TODAY)

    assert texts(tree) == before


def test_release_of_nothing_is_refused(releases, tree):
    """Without an entry under Unreleased there is nothing that anybody would upgrade for."""
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [1.0.0] - 2030-01-02\n\n- All of it.\n")
    before = texts(tree)

    with pytest.raises(releases.Refused, match="nothing under Unreleased"):
        releases.release(tree, "1.1.0", TODAY)

    assert texts(tree) == before
