"""docs/reference/ is what the code says today, and the site has every page that it names."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from docs import generate
from replicator.config.settings import FLAGS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"
CONFIG = ROOT / "config" / "mkdocs.yml"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generate.pages()


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_page_is_what_the_code_says(pages, name):
    """A page of docs/reference is as the code makes it now; `make docs` writes it anew."""
    assert (generate.REFERENCE / name).read_text(encoding="utf-8") == pages[name], "stale: run `make docs`"


def test_reference_has_no_page_that_nothing_makes(pages):
    """What the code no longer has leaves no page behind."""
    assert {path.name for path in generate.REFERENCE.iterdir()} == set(pages)


def test_every_setting_is_told_with_its_default(pages):
    """Each setting has a heading of its own, its option and its default below it."""
    sections = {part.partition("`\n")[0]: part for part in pages["settings.md"].split("\n### `")[1:]}

    assert list(sections) == [flag.variable for flag in FLAGS]
    assert [
        flag.name
        for flag in FLAGS
        if f"`{flag.option}`" not in sections[flag.variable]
        or (f"default `{flag.default}`" if flag.default else "no default") not in sections[flag.variable]
    ] == []


def test_word_without_a_next_step_ends_the_generator():
    """An error that nobody said what to do about is found when the pages are made."""
    with pytest.raises(SystemExit, match="no next step for the error 'brand-new'"):
        generate.error_table({"brand-new": "Something."}, {"known": "Nothing."})


@pytest.mark.parametrize("words", [{"known", "brand-new"}, set()])
def test_words_of_code_and_page_are_the_same(words):
    """A word that only the code has, or only the page, is found when the pages are made."""
    with pytest.raises(SystemExit, match="differ"):
        generate.agreed({"known": "Nothing."}, words)


def test_every_word_of_a_rule_is_found_in_the_code():
    """Words are looked for where rules are raised, and where a walk leaves something out."""
    assert {"symlink", "hard-linked", "too-large", "unreadable"} <= generate.left_out_words()
    assert generate.cause_words() == {"source-missing", "directory-missing"}


def uris() -> list[str]:
    """Every page that the navigation names."""
    sections = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["nav"]
    return [uri for section in sections for entries in section.values() for entry in entries for uri in entry.values()]


def outside() -> dict[str, str]:
    """The pages outside docs/, as the hook has them: read as text, for mkdocs is not installed here."""
    tree = ast.parse((DOCS / "repository.py").read_text(encoding="utf-8"))
    (found,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and "OUTSIDE" in ast.dump(node)]
    return ast.literal_eval(found)


def test_navigation_names_pages_that_exist():
    """Each entry is a page of docs/ or one that the hook brings, and none is there twice."""
    known = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | set(outside().values())

    assert sorted(set(uris()) - known) == []
    assert len(uris()) == len(set(uris()))


def test_generated_pages_are_in_the_navigation(pages):
    """What is made is found."""
    assert {f"reference/{name}" for name in pages} <= set(uris())


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of everything that the site is made of."""
    for name in ("docs", "config", "grafana"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in (*outside(), "Dockerfile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not MKDOCS.exists(), reason="mkdocs is in .venv-docs only, which `make docs` makes")
def test_site_is_whole_and_needs_no_network(tree):
    """Every link leads somewhere, but for slips, which are seen; files outside docs/ are there; nothing is foreign."""
    slips = ["nowhere.md", "safe.md#nowhere", "../config/nowhere.yaml", "/safe.md"]
    with (tree / "docs" / "limits.md").open("a", encoding="utf-8") as page:
        page.writelines(f"\n[a slip]({slip})\n" for slip in slips)

    command = [str(MKDOCS), "build", "--strict", "--config-file", str(tree / "config" / "mkdocs.yml")]
    built = subprocess.run(command, capture_output=True, text=True, env={"NO_MKDOCS_2_WARNING": "1"}, check=False)
    site = tree / "build" / "site"
    warnings = [line for line in built.stderr.splitlines() if line.startswith("WARNING")]
    texts = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]

    assert built.returncode == 1
    assert sorted(slip for slip in slips for line in warnings if f"'{slip}'" in line) == sorted(slips)
    assert len(warnings) == len(slips), warnings
    assert len(texts) > len(uris())
    assert [text for text in texts if 'src="http' in text or "fonts.g" in text] == []
    assert (site / "files" / "config" / "quadlet" / "replicator.container").is_file()
