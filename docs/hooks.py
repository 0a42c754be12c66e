"""What MkDocs makes pages of beside docs/: the modules of omnijax, and the result cards of experiments/reproduce/.

A new module, room or card becomes a page by itself.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE, CARDS = ROOT / "omnijax", ROOT / "experiments" / "reproduce"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


def rooms() -> dict[str, list[str]]:
    """The modules of each room by their dotted names, the package itself last as `modules`."""
    found: dict[str, list[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__init__":
            found.setdefault(parts[1] if len(parts) > 2 else "modules", []).append(".".join(parts))
    return dict(sorted(found.items(), key=lambda room: (room[0] == "modules", room[0])))


def cards() -> dict[str, str]:
    """The result cards: the title of each, by the name of its file."""
    titles = {file.name: file.read_text(encoding="utf-8").split("\n", 1)[0] for file in CARDS.glob("*.md")}
    numbered = {name: title.removeprefix("# ") for name, title in titles.items() if re.match(r"# R\d+: ", title)}
    return dict(sorted(numbered.items(), key=lambda card: card[1]))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the generated pages into the navigation."""
    added: dict[str, list[Any]] = {
        "Results": ["results/index.md", *({title: f"results/{name}"} for name, title in cards().items())],
        "API reference": ["reference/index.md", *({room: f"reference/{room}.md"} for room in rooms())],
    }
    for entry in config.nav or []:
        for title in entry.keys() & added.keys():
            entry[title] = added[title]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, and the figures of the cards."""
    for room, modules in rooms().items():
        files.append(File.generated(config, f"reference/{room}.md", content=_room_page(room, modules)))
    files.append(File.generated(config, "reference/index.md", content=_public_page()))
    for name in cards():
        files.append(File.generated(config, f"results/{name}", content=_card_page(CARDS / name)))
    for figure in sorted((CARDS / "figures").rglob("*.png")):
        uri = f"results/{figure.relative_to(CARDS).as_posix()}"
        files.append(File.generated(config, uri, abs_src_path=str(figure)))
    return files


def _room_page(room: str, modules: list[str]) -> str:
    """The docstring of a room, what its package defines itself, and its modules."""
    options = "    options:\n      show_root_full_path: true\n      show_symbol_type_heading: false\n"
    parts = ["# Modules beside the rooms\n"]
    if room != "modules":
        package = _visit(PACKAGE / room / "__init__.py")
        own = [name for name, member in package.members.items() if isinstance(member, griffe.Function | griffe.Class)]
        parts = [f"# omnijax.{room}\n", package.docstring.value if package.docstring else "", ""]
        parts += [f"::: omnijax.{room}.{name}\n" for name in own if not name.startswith("_")]
    return "\n".join([*parts, *(f"::: {module}\n{options}" for module in modules)])


def _public_page() -> str:
    """A table of the names that `import omnijax` offers, each with a link and the first line of its docstring."""
    package = griffe.load("omnijax", search_paths=[str(ROOT)])
    lines = []
    for name in package.exports or ():
        target = package[str(name)].final_target
        summary = target.docstring.value.split("\n\n")[0].replace("\n", " ") if target.docstring else ""
        lines.append(f"| [`omnijax.{name}`][{target.path}] | {summary.replace('|', chr(92) + '|')} |")
    docstring = package.docstring.value if package.docstring else ""
    head = ["# API reference", "", docstring, "", "| name | what it is |", "|---|---|"]
    return "\n".join([*head, *lines, ""])


def _visit(file: pathlib.Path) -> griffe.Module:
    return griffe.visit("package", filepath=file, code=file.read_text(encoding="utf-8"))


def _card_page(file: pathlib.Path) -> str:
    """A card as it stands, with links only to other cards: the site has no page for the other files of the tree."""

    def link(match: re.Match[str]) -> str:
        return match[0] if match[2].split("#")[0] in cards() else match[1]

    return LINK.sub(link, file.read_text(encoding="utf-8"))
