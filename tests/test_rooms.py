"""What the import rules cannot say: contracts touch no files, nobody makes or opens a run folder by himself, and templates escape."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parent.parent
SOURCES = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
FILES = {
    "open",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "is_file",
    "is_dir",
    "stat",
    "iterdir",
    "glob",
    "rglob",
    "mkdir",
    "unlink",
    "touch",
    "rename",
}
ALLOWED = {
    ("settings.py", "load"),
    ("zones.py", "_version"),
    ("zones.py", "_version_of"),
}  # docs/adr/0019-who-reads-files.md


def calls_of(tree: ast.AST, function: str = "") -> Iterator[tuple[str, str]]:
    """Every call, by the function that it is made in and by the name that is called."""
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.Call):
            called = node.func
            yield (
                inside,
                called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else "",
            )
        yield from calls_of(node, inside)


def test_contracts_touch_no_files_but_the_settings_and_pythons_zones() -> None:
    found = {
        (path.name, function)
        for path in (PROJECT / "contracts").glob("*.py")
        for function, called in calls_of(ast.parse(path.read_text()))
        if called in FILES
    }
    assert found == ALLOWED


def test_no_function_is_longer_than_a_page() -> None:
    """Of the source; decorators are not counted."""
    folders = [path.parent for path in PROJECT.glob("*/__init__.py") if path.parent.name != "tests"]
    long = {
        f"{path.relative_to(PROJECT)}: {node.name}": node.end_lineno - node.lineno + 1
        for folder in folders
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None and node.end_lineno - node.lineno >= 80
    }
    assert not long


def test_templates_escape_all_that_the_pages_folder_has_not_drawn() -> None:
    templates = [path for folder in SOURCES for path in (PROJECT / folder).rglob("*.jinja")]
    assert templates and not [path for path in templates if re.search(r"\bsafe\b|autoescape", path.read_text())]
    sources = [path for folder in SOURCES for path in (PROJECT / folder).rglob("*.py") if folder != "pages"]
    assert not [path for path in sources if "Markup" in {called for _, called in calls_of(ast.parse(path.read_text()))}]


def test_an_installed_package_has_its_templates() -> None:
    packaged = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    found = {
        path
        for package, patterns in packaged.items()
        for pattern in patterns
        for path in (PROJECT / package).glob(pattern)
    }
    assert not {path for folder in SOURCES for path in (PROJECT / folder).rglob("templates/*")} - found
