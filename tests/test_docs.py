"""Every block of code and every command of README.md and docs/ works, and the documentation builds.

Python blocks are run page by page, in one namespace. So are console blocks, in a directory that has a small run,
`runs/demo`. A Python block with a title, ```` ```python title="mine.py" ````, is saved there as that file. A console
block behind `<!-- parsed: REASON -->` isn't run: the command line parses its commands, and scripts of `launch/` print
what they would do. A `text` block right behind another block is what that one prints; `…` stands for anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import shell
from pages import PAGES, ROOT, Block, Command, PageError, blocks
from test_packaging import read_setup

import omnijax.experiment
from omnijax import cli, testing
from omnijax.config import Config
from omnijax.experiment import load_experiment, override

DIGITS = ROOT / "experiments" / "digits.py"
LAUNCHED = re.compile(r"launch/(?!retry)[\w/]+\.(sh|sbatch)")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def shrink(config: Config, directory: pathlib.Path) -> Config:
    """A page's experiment in small. It evaluates eight records, one for each device: the batch of a single sample."""
    small = testing.shrink(config, directory)
    return dataclasses.replace(
        small,
        model=dataclasses.replace(small.model, depth=1),
        train=dataclasses.replace(small.train, steps=6, checkpoint_every=6),
        eval=dataclasses.replace(small.eval, examples=8, batch_size=8),
    )


@pytest.fixture(scope="module")
def place(small_data, one_memory_size, tmp_path_factory) -> pathlib.Path:
    """A directory like the root of the repository, with a run of a few steps of the small demo."""
    place = tmp_path_factory.mktemp("docs")
    for name in ("experiments", "launch", "docs"):
        (place / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(omnijax.experiment, "load_experiment", lambda file: shrink(load_experiment(file), small_data))
        patch.setattr("omnijax.new_experiment.cost_here", lambda config: "about 1 min")  # it takes half a minute
        assert cli.main(["train", "experiments/digits.py", "--workdir", "runs/demo"]) == 0
        yield place


# ---------------------------------------------------------------------- what is run


def same(shown: str, printed: str) -> bool:
    """Whether the output on a page is the printed output. White space doesn't count, and `…` matches any text."""
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in shown.split("…"))
    return re.fullmatch(pattern, " ".join(printed.split())) is not None


def run_command(command: Command) -> str:
    """Runs `omnijax …` here; what it prints, errors too, without the line that names an experiment file."""
    if command.words[0] != "omnijax" or command.names:
        raise PageError(f"only `omnijax …` is run; say why this is only parsed: {command.text}")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = cli.main(list(command.words[1:]))
    lines = said.getvalue().splitlines(keepends=True)
    printed = "".join(line for line in lines if not line.startswith("omnijax: executing "))
    assert (status == 0) == ("omnijax: " not in printed), printed
    return printed


def run_block(block: Block, namespace: dict) -> str:
    """Runs a block of code or commands, or saves it as a file. Returns what it prints."""
    if block.file:
        pathlib.Path(block.file).write_text(block.text + "\n", encoding="utf-8")
        return ""
    if block.language == "python":
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("\n" * block.line + block.text, "page", "exec", dont_inherit=True), namespace)
        return said.getvalue()
    printed = ""
    for command, shown in block.commands():
        printed = run_command(command)
        assert not shown or same(shown, printed), printed
    return printed


# ---------------------------------------------------------------------- what is parsed


def parse_omnijax(words: tuple[str, ...]) -> None:
    """Parses a command line of omnijax, with its overrides."""
    options, rest = cli._parser().parse_known_args(list(words))
    path = str(options.experiment) if "experiment" in options else ""
    config = load_experiment(ROOT / path if path and not path.startswith("tfds:") else DIGITS)
    assert not rest or "overrides" in options, rest
    override(config, rest)


def parse_launched(command: Command, script: str, names: dict[str, str]) -> None:
    """Lets a script of launch/ print its commands, and parses the overrides behind it."""
    behind = command.words[command.words.index(script) + 1 :]
    result = shell.run(script, {"DRY_RUN": "1", "OMNIJAX": "omnijax", **names}, *behind)
    assert result.returncode == 0, result.stderr
    if "EXPERIMENT" in names:
        parse_omnijax(("sweep" if "sweep" in script else "train", names["EXPERIMENT"], *behind))


def parse_pip(words: tuple[str, ...]) -> None:
    """Checks the extras of this package, and that constraint files are there."""
    for word in words:
        if extras := re.fullmatch(r"(?:\.|omnijax)\[([\w,]+)\]", word):
            assert set(extras[1].split(",")) <= set(read_setup()["extras_require"]), word
        elif word.endswith(".txt"):
            assert (ROOT / word).is_file(), word


def parse_command(command: Command, names: dict[str, str]) -> None:
    """Checks a command without running it."""
    program, *rest = command.words
    script = next((word for word in command.words if LAUNCHED.fullmatch(word)), None)
    if program == "omnijax":
        parse_omnijax(tuple(rest))
    elif script:
        assert program in (script, "sbatch"), command.text
        parse_launched(command, script, names)
    elif program == "make":
        result = subprocess.run(["make", "--dry-run", *rest], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
    elif program.endswith("pip") and rest[0] == "install":
        parse_pip(tuple(rest[1:]))
    elif program.startswith("python") and rest[0].endswith(".py"):
        source = (ROOT / rest[0]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in source for word in rest[1:] if word.startswith("--")), command.text
    elif not (program.startswith("python") and rest[:2] == ["-m", "venv"]):
        raise PageError(f"no test knows this command: {command.text}")


def parse_block(block: Block) -> None:
    """Parses the commands of a block; what it exports holds until its end."""
    names: dict[str, str] = {}
    for command, _ in block.commands():
        if command.words:
            parse_command(command, names | command.names)
        else:
            names |= command.names


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_true(page: str, place: pathlib.Path) -> None:
    namespace, printed = {"__name__": "page"}, ""
    for block in blocks(text_of(page)):
        where = f"{page}:{block.line}"
        if block.language == "text":
            assert not block.output or same(block.text, printed), f"{where}: it prints\n{printed}"
        elif block.parsed:
            parse_block(block)
        else:
            print(where)
            printed = run_block(block, namespace)


def test_the_shell_of_the_pages_is_sound(tmp_path) -> None:
    scripts = []
    for page in PAGES:
        for block in blocks(text_of(page)):
            if block.language == "console":
                lines = [command.text for command, _ in block.commands()]
                scripts.append(tmp_path / f"{page.replace('/', '_')}_{block.line}.sh")
                scripts[-1].write_text("\n".join(["#!/usr/bin/env bash", *lines, ""]))
    shellcheck = shutil.which("shellcheck") or str(pathlib.Path(sys.executable).parent / "shellcheck")
    result = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "page",
    [
        "```\nx = 1\n```",
        "```bash\nls\n```",
        "    x = 1",
        "<!-- parsed: -->\n```console\n$ omnijax vocab example\n```",
        "<!-- parsed: slow -->\n```python\nx = 1\n```",
        "```text\n$ omnijax vocab example\n```",
        "```python\nx = 1",
        '```python title="../mine.py"\nx = 1\n```',
        '```console title="mine.py"\n$ omnijax vocab example\n```',
    ],
)
def test_a_block_that_no_test_would_run_is_found(page: str) -> None:
    with pytest.raises(PageError):
        blocks(f"Words.\n\n{page}\n")


@pytest.mark.parametrize(
    "commands",
    [
        "omnijax train experiments/digits.py --model.detph 6",
        "omnijax dance",
        "make dance",
        "launch/local.sh",
        "EXPERIMENT=experiments/digits.py launch/local.sh --model.detph 6",
        "pip install -e '.[dance]'",
        "python experiments/reproduce/dance.py",
        "dance",
        "omnijax vocab example | head",
    ],
)
def test_a_wrong_command_is_found(commands: str) -> None:
    [block] = blocks(f"<!-- parsed: wrong -->\n```console\n$ {commands}\n```")
    with pytest.raises((PageError, AssertionError, SystemExit, OSError, omnijax.OmnijaxError)):
        parse_block(block)


def test_wrong_output_is_found() -> None:
    assert same("a … c", "a b\n c\n")
    assert not same("a b", "a c")


# ---------------------------------------------------------------------- the site, the figure, the README


def test_the_site_builds_and_needs_no_network(tmp_path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    remote = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=["']?(?:https?:)?//""")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    assert not [page.name for page in pages if remote.search(page.read_text(encoding="utf-8"))]
    styles = [style.read_text(encoding="utf-8") for style in (tmp_path / "site").rglob("*.css")]
    assert not any(re.search(r"url\(['\"]?(https?:)?//", style) for style in styles)


def test_the_figure_is_what_its_script_draws() -> None:
    figures = runpy.run_path(str(ROOT / "docs" / "figures" / "make.py"))["figures"]()
    for name, text in figures.items():
        assert (ROOT / "docs" / "figures" / name).read_text(encoding="utf-8") == text, "run docs/figures/make.py"


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    readme = text_of("README.md")
    assert len(readme.splitlines()) <= 130
    links = re.findall(r"\]\(([^)#]+)\)|(?:src|srcset)=\"([^\"]+)\"", readme)
    assert [link for pair in links for link in pair if link and not (ROOT / link).exists()] == []


def test_intervals_are_those_of_the_cards() -> None:
    """A figure `a ± b` on the page of results is, rounded, one of a card; those of the demo are in no card."""
    number = re.compile(r"(\d+\.\d+) ± (\d+\.\d+)")
    cards = [
        pair for card in (ROOT / "experiments/reproduce").glob("*.md") for pair in number.findall(card.read_text())
    ]

    def on_a_card(pair: tuple[str, str]) -> bool:
        return any(
            all(abs(float(a) - float(b)) <= 0.5001 * 10.0 ** -len(a.split(".")[1]) for a, b in zip(pair, card))
            for card in cards
        )

    page = text_of("docs/results/index.md").split("## Digits on pixels")[1]
    shown = number.findall(page)
    assert len(shown) >= 8
    assert [pair for pair in shown if not on_a_card(pair)] == []
