"""What stands in a page of the documentation: its blocks of code, and the commands in them."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("python", "console", "text")
PARSED = re.compile(r"<!-- parsed: (.*?) *-->")
TITLE = re.compile(r'python title="([a-z_]+\.py)"')
COMMAND = re.compile(r"\s*(\$ |omnijax [a-z]|make [a-z]|pip |python )")


class PageError(Exception):
    """Something in a page that no test would run."""


@dataclasses.dataclass(frozen=True)
class Command:
    """One line that a reader types.

    Attributes:
        text: the line as it is, for a shell.
        words: of the command, without assignments in front and without a comment behind.
        names: the assignments in front of it, or those that it exports.
    """

    text: str
    words: tuple[str, ...]
    names: dict[str, str]

    @classmethod
    def of(cls, text: str) -> Command:
        """Splits a line as a shell does; pipes, redirections and several commands in one line aren't supported."""
        words, names = shlex.split(text, comments=True), {}
        if exported := words[0] == "export":
            words = words[1:]
        while words and (found := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
            names[found[1]] = found[2]
            words = words[1:]
        if exported == bool(words) or {"|", ">", "&&", ";", "&"} & set(words):
            raise PageError(f"only plain commands can be tested: {text}")
        return cls(text, tuple(words), names)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: where it stands in its page.
        parsed: why it isn't run; empty where it is.
        output: whether it is a `text` block right behind a block that is run: what that one prints.
        file: name of the file that a `python` block is saved as; empty where the block is run.
    """

    line: int
    language: str
    text: str
    parsed: str
    output: bool
    file: str = ""

    def commands(self) -> list[tuple[Command, str]]:
        """The commands of a `console` block, each with the output that is shown for it."""
        found: list[tuple[Command, str]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((Command.of(line[2:]), ""))
            elif found:
                found[-1] = (found[-1][0], found[-1][1] + line + "\n")
            else:
                raise PageError(f"a console block begins with `$ `: {line}")
        return found


def blocks(page: str) -> list[Block]:
    """The blocks of a page's text, in order.

    Raises:
        PageError: code in a form that isn't tested.
    """
    found: list[Block] = []
    lines = enumerate(page.splitlines(), 1)
    before = earlier = ""  # the last line that isn't empty, and the line before
    admonition = False
    for number, line in lines:
        if fence := re.match(r"( *)```(.*)$", line):
            indent, language = fence.groups()
            body = []
            for _, inside in lines:
                if inside.strip() == "```":
                    break
                body.append(inside.removeprefix(indent))
            else:
                raise PageError(f"line {number}: the block never ends")
            found.append(_block(number, language, "\n".join(body), before, found[-1] if found else None))
            before = earlier = "```"
            continue
        if line.startswith(("!!!", "???", "===")):
            admonition = True
        elif line and not line.startswith(" "):
            admonition = False
        if (
            line.startswith("    ")
            and not earlier.strip()
            and not admonition
            and not re.match(r" +([-*]|\d+\.) ", line)
        ):
            raise PageError(f"line {number}: an indented block of code isn't tested; use a fence: {line}")
        before, earlier = line if line.strip() else before, line
    return found


def _block(number: int, language: str, text: str, before: str, last: Block | None) -> Block:
    """Checks a block by itself, and against what stands before it."""
    where = f"line {number}"
    title = TITLE.fullmatch(language)
    language = "python" if title else language
    if language not in LANGUAGES:
        raise PageError(f"{where}: a block is one of {', '.join(LANGUAGES)}, not {language!r}")
    reason = PARSED.fullmatch(before.strip())
    if reason and not reason[1]:
        raise PageError(f"{where}: say why the block is only parsed")
    if reason and language != "console":
        raise PageError(f"{where}: only console blocks may be parsed; run {language}")
    output = before == "```" and last is not None and last.language != "text" and not last.parsed
    if language == "text" and not output and any(COMMAND.match(line) for line in text.splitlines()):
        raise PageError(f"{where}: a command in a text block isn't tested; use a console block")
    file = title[1] if title else ""
    return Block(number, language, text, reason[1] if reason else "", language == "text" and output, file)
