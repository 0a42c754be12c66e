"""experiments/things: the showpiece in small, from twenty things that are drawn here; and its packages, made here."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import pathlib
import re
import sys
import tarfile
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import PIL.Image
import pytest
import soundfile

import omnijax
from omnijax.cli import WRONG_INPUT, main
from omnijax.errors import DataError, PlatformError
from omnijax.evaluate.display import PLOT
from omnijax.evaluate.history import read_rows
from omnijax.evaluate.judging import Made, examples
from omnijax.evaluate.split import EvaluatedSplit
from omnijax.experiment import load_experiment, override

pytest.importorskip("espeakng_loader", reason="needs the extra [demo]")
THINGS = pathlib.Path(__file__).parents[1] / "experiments" / "things"
LANGUAGES = ("fr", "ru", "el", "da")
SMALL = ["--train.steps=4", "--train.checkpoint-every=4", "--train.log-every=2", "--optim.warmup-steps=1"]
SMALL += ["--model.width=32", "--model.depth=1", "--model.unroll=1", "--eval.examples=6"]


def blocks(name: str) -> PIL.Image.Image:
    """Random blocks that no other name has."""
    found = np.random.default_rng(list(name.encode())).integers(0, 256, (8, 8, 3), np.uint8)
    return PIL.Image.fromarray(found).resize((32, 32), PIL.Image.Resampling.NEAREST)


def module_of(name: str) -> ModuleType:
    """A program beside the experiment."""
    spec = importlib.util.spec_from_file_location(name, THINGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Twenty things, in the form of make_things.py."""
    folder = tmp_path_factory.mktemp("things")
    module_of("miniature").make(folder, LANGUAGES)
    return folder


@pytest.fixture(scope="module")
def train(files: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that trains the experiment in small, with fewer languages and pieces. The data are prepared."""
    folder, text = tmp_path_factory.mktemp("small"), (THINGS / "experiment.py").read_text()
    spoken = re.search(r"^SPOKEN = \(.+\)$", text, re.MULTILINE)
    assert spoken is not None
    assert "pieces=2048" in text  # twenty things have no more than 50
    text = text.replace(spoken[0], f"SPOKEN = {LANGUAGES}").replace("pieces=2048", "pieces=50")
    (folder / "experiment.py").write_text(text)
    knobs = ["--data.folder", str(files), "--data.directory", str(folder / "data"), *SMALL]
    assert main(["prepare", str(folder / "experiment.py"), *knobs]) == 0
    return ["train", str(folder / "experiment.py"), *knobs]


def test_pictures_have_credits_and_the_nearest_in_training(train: list[str]) -> None:
    config = override(load_experiment(pathlib.Path(train[1])), train[2:])
    config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, examples=40))
    split = EvaluatedSplit(config)
    shown = [row["picture"] for row in config.data.records("train") if row.get("picture") is not None]
    places, pictures = split.places(["picture"])[:4], shown[-4:]
    decodable = np.ones(4, bool)
    made = Made("picture", places, [None, *pictures[1:]], decodable, "caption_en", ["a", "b", "c", "d"], "caption_en")
    made = made._replace(between={"caption_fr": ["<b>", None, "c", "d"]})
    found = {entry["record"]: entry for entry in examples(split, made)}
    assert "nearest" not in found[places[0]]
    for place, picture in zip(places[1:], pictures[1:], strict=True):
        entry = found[place]
        assert entry["nearest"]["html"] == split.modalities["picture"].html(picture, "nearest in training")
        assert entry["nearest"]["credit"].endswith("(made here)")
        assert entry["credit"] == f"{config.data.classes[entry['class']]}: flat (made here)"


def listened(run: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    """What listen.py says if its recogniser hears one caption in every clip."""
    listen = module_of("listen")
    monkeypatch.setattr(listen, "LANGUAGES", ("fr",))
    monkeypatch.setattr(listen, "recogniser", lambda folder: lambda samples, language: "fr 03")
    monkeypatch.setattr(listen, "wrong", lambda read, said: float(read != said))
    found: dict[str, dict[str, float]] = listen.measure(run, "validation/word")
    return found


def test_a_missing_recogniser_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["listen.py", "no-run"])
    listen = module_of("listen")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    listen.main()
    assert capsys.readouterr().out.count("\n") == 1


def test_it_goes_through_every_command(
    train: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main([*train, "--workdir", str(run)]) == 0
    assert main(["evaluate", str(run), "--tasks", "directions,held_out"]) == 0  # bits have a program for each task
    figures = read_rows(run)[-1]
    assert figures["decodable"] == 1
    tests = figures["tests"]
    assert {kind: list(found) for kind, found in tests.items()} == {
        "artist": ["picture->caption_en", "caption_en->picture"],
        "photo": ["picture->caption_en", "picture->speech_ru"],
        "word": [*(f"speech_{one}->caption_{one}" for one in LANGUAGES[:-2]), "speech_fr->picture"],
        "voice": ["speech_el->caption_el", "speech_da->caption_da"],
    }
    artist = tests["artist"]["picture->caption_en"]
    assert artist["examples"] == 19
    assert 0 <= artist["top_1"] <= artist["top_5"] < 1  # it has hardly learned
    assert artist["interval"][0] <= artist["accuracy"] <= artist["interval"][1]
    assert artist["anchors"]["nearest picture"] > 0.3  # an artist is much like another one
    drawn = tests["word"].pop("speech_fr->picture")
    assert drawn["decodable"] == 1
    assert "judge" not in drawn  # there is no picture beside a clip
    word = [row["anchors"]["nearest synthetic clip"] for row in tests["word"].values()]
    assert np.mean(word) > 0.3  # tones that rise and fall alike
    assert tests["voice"] == dict.fromkeys(tests["voice"], {"examples": 0})  # this side has no record of it
    assert "top_1" not in tests["artist"]["caption_en->picture"]
    assert figures["directions"]["caption_en->picture"]["judge"] > 0.3  # on real pictures; chance is 0.05
    opened = omnijax.load(run)
    answers = opened.config.data.answers("caption_en")
    written = [f"en {int(name.split()[1]):02d}" for name in opened.config.data.classes]
    assert answers == [None, *written[1:]]  # both pictures of thing 0 are held out
    ranks = []
    for row in opened.config.data.records("validation/artist"):
        among = dict.fromkeys([*answers[1:], row["caption_en"]])
        ranked = [one.answer for one in opened.rank({"picture": row["picture"]}, list(among), "caption_en")]
        ranks.append(1 + ranked.index(row["caption_en"]))
    assert artist["top_1"] == pytest.approx(np.mean(np.array(ranks) == 1))
    assert artist["top_5"] == pytest.approx(np.mean(np.array(ranks) <= 5))
    capsys.readouterr()
    (run / PLOT).unlink()
    assert main(["evaluate", str(run), "--tasks", "held_out"]) == 0  # nothing is measured again, but it is shown
    assert not (run / PLOT).exists()  # it would have no line
    shown = capsys.readouterr().out
    assert "artist: picture → caption_en" in shown
    assert "nearest" in shown  # of the anchor, in two lines
    found = listened(run, monkeypatch)
    assert found["fr"]["clips"] == sum("speech_fr" in row for row in opened.config.data.records("validation/word"))
    assert found["fr"]["cer_real"] == found["fr"]["cer_generated"] > 0.5  # the same is always heard
    assert found["fr"]["right_real"] == found["fr"]["right_generated"] < 0.5
    out = tmp_path / "made.png"
    command = ["sample", str(run), "--from", "caption_fr=fr 03", "--to", "picture", "--out", str(out)]
    assert main(command) == 0
    assert PIL.Image.open(out).width % 32 == 0
    config = load_experiment(THINGS / "experiment.py")
    assert len(config.data.splits) == 9


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for folder in (THINGS, THINGS.parent):
        monkeypatch.syspath_prepend(str(folder))
    import fetch_packages

    yield fetch_packages
    for name in ("fetch_packages", "make_things", "leaks", "miniature"):
        sys.modules.pop(name, None)


def test_drawings_are_rendered_whatever_their_unit(making: ModuleType) -> None:
    import make_things

    body = '<rect width="10" height="20" fill="#f00"/>'
    for head in (
        'viewBox="0 0 20 20"',
        'width="20" height="20"',
        'width="15pt" height="15pt"',
        'width="20px" height="20px"',
    ):
        drawn = make_things._rendered(f'<svg xmlns="http://www.w3.org/2000/svg" {head}>{body}</svg>')
        pixels = np.asarray(drawn.convert("RGBA"))
        assert pixels.shape == (128, 128, 4), head
        assert pixels[64, 32].tolist() == [255, 0, 0, 255]
        assert pixels[64, 96, 3] == 0
    with pytest.raises(DataError, match="drawing"):
        make_things._rendered('<svg xmlns="http://www.w3.org/2000/svg"/>')


def test_the_table_has_147_things(making: ModuleType) -> None:
    import make_things

    things = make_things.read_things()
    assert len(things) == 147
    assert sum(len(stamps) for _, stamps in things.values()) == 225
    assert set(make_things.ARTIST) < set(make_things.ARTISTS)
    assert set(make_things.VOICE) < set(make_things.SPOKEN)
    tenths = [tenth for some in make_things.WORD_TENTHS.values() for tenth in some]
    assert len(set(tenths)) == len(tenths) < 10


def packed(files: dict[str, bytes], compression: str) -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def debian(parts: dict[str, bytes]) -> bytes:
    """A package of Debian: an `ar` archive."""
    found = b"!<arch>\n"
    for name, content in parts.items():
        found += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        found += b"\n" * (len(content) % 2)
    return found


def test_packages_are_read_without_being_unpacked(making: ModuleType, tmp_path: pathlib.Path) -> None:
    files = {"./usr/a.txt": b"a", "./usr/b.txt": b"b"}
    parts = {"debian-binary": b"2.0", "control.tar.xz": packed({"x": b"odd"}, "xz"), "data.tar.xz": packed(files, "xz")}
    (tmp_path / "a_1.deb").write_bytes(debian(parts))
    assert list(making.members(tmp_path / "a_1.deb", lambda name: "a" in name)) == [("./usr/a.txt", b"a")]
    (tmp_path / "b-1.tgz").write_bytes(packed({"package/b.json": b'{"b": 1}'}, "gz"))
    assert making.read_json(tmp_path / "b-1.tgz", "b.json") == [{"b": 1}]
    for name in ("a_1.deb", "b-1.tgz"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="the package can't be read"):
            list(making.members(tmp_path / name, lambda name: True))


COPYIST = "fluent-emoji"
"""An artist whose drawings are those of a held-out one."""


def body_of(artist: str, name: str) -> str:
    """Ten random boxes."""
    boxes = np.random.default_rng([*artist.encode(), *name.encode()]).integers(0, 16, (10, 5))
    form = '<rect x="{}" y="{}" width="{}" height="{}" fill="#{:x}00"/>'
    return "".join(form.format(*box) for box in boxes.tolist())


CODE_POINTS = {"cat": "1f408", "dog": "1f415", "black dog": "1f415-200d-2b1b"}


def write_packages(folder: pathlib.Path, making: ModuleType, things: ModuleType) -> None:
    """Packages with three things: two stamps of a cat, one of a dog, clips in two languages, drawings of two."""
    from miniature import say

    folder.mkdir()
    stamps, clip = {}, io.BytesIO()
    soundfile.write(clip, np.concatenate([np.zeros(16000), say(3, 0), np.zeros(8000)]), 16000, format="OGG")
    texts = {"cat": "A cat.\nfr.utf8=Un chat !\nda.utf8=En kat.\n", "kitten": "A kitten.\nfr.utf8=Un chaton.\n"}
    for name, text in (texts | {"dog": "A dog.\nda.utf8=En hund.\nxx.utf8=?\n", "other": "Other.\n"}).items():
        stamps[f"./usr/share/tuxpaint/stamps/a/{name}.txt"] = text.encode()
        for language in ("fr", "da"):
            stamps[f"./usr/share/tuxpaint/stamps/a/{name}_desc_{language}.ogg"] = clip.getvalue()
        picture = io.BytesIO()
        blocks(name).save(picture, format="PNG")
        stamps[f"./usr/share/tuxpaint/stamps/a/{name}.png"] = picture.getvalue()
    long = io.BytesIO()
    soundfile.write(long, np.tile(say(3, 0), 5), 16000, format="OGG")
    stamps["./usr/share/tuxpaint/stamps/a/dog_desc_da.ogg"] = long.getvalue()
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><circle cx="5" cy="5" r="5"/></svg>'
    stamps["./usr/share/tuxpaint/stamps/a/kitten.svg"] = svg.encode()
    del stamps["./usr/share/tuxpaint/stamps/a/kitten.png"]
    archive = debian({"debian-binary": b"2.0\n", "data.tar.xz": packed(stamps, "xz")})
    (folder / "tuxpaint-stamps-default_1_all.deb").write_bytes(archive)
    signs = {name: "".join(chr(int(part, 16)) for part in code.split("-")) for name, code in CODE_POINTS.items()}
    names = {sign: {"tts": [name.title()]} for name, sign in signs.items()}
    table = json.dumps({"annotations": {"annotations": names}}).encode()
    files = {f"package/annotations/{one}/annotations.json": table for one in things.WRITTEN}
    (folder / things.NAMES.pattern).write_bytes(packed(files, "gz"))
    for artist, package in things.DRAWINGS.items():
        cat, hound = ({"body": body_of("emojione" if artist == COPYIST else artist, name)} for name in ("cat", "hound"))
        icons = {
            "icons": {"cat": cat, "hound": hound},
            "aliases": {"black-dog": {"parent": "hound"}},
            "width": 16,
            "height": 16,
        }
        characters = {"1f415": "hound"} if artist == "noto" else {}
        about = {"author": {"name": artist.title()}, "license": {"title": "Free"}}
        files = {"icons.json": icons, "chars.json": characters, "info.json": about}
        content = {f"package/{name}": json.dumps(value).encode() for name, value in files.items()}
        (folder / package.pattern).write_bytes(packed(content, "gz"))


def test_files_are_made_of_packages(
    making: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import leaks
    import make_things as things

    table = "thing\tcode_point\tstamp\ncat\t1f408\ta/cat\ncat\t1f408\ta/kitten\ndog\t1f415\ta/dog\n"
    (tmp_path / "things.tsv").write_text(table + "black dog\t1f415-200d-2b1b\ta/dog\n")
    monkeypatch.setattr(things, "TABLE", tmp_path / "things.tsv")
    monkeypatch.setattr(things, "PHOTO_THINGS", {"test": 1})
    write_packages(tmp_path / "packages", making, things)
    told: list[float] = []
    things.make(tmp_path / "made", str(tmp_path / "packages"), 1, 0, told.append)
    assert capsys.readouterr().out.splitlines() == [
        "left out: 2 clips of more than 1.8 seconds",  # both dogs have this stamp
        "left out: 4 pictures for training that are copies of held-out ones",  # one is the stamp of both dogs
    ]
    assert told == sorted(told)
    assert told[-1] == 1
    rows = [json.loads(line) for line in (tmp_path / "made" / "metadata.jsonl").read_text().splitlines()]
    pictures = [row for row in rows if "picture_file_name" in row]
    for row in pictures:
        with PIL.Image.open(tmp_path / "made" / row["picture_file_name"]) as picture:
            assert picture.size == (32, 32)
    assert all(row["signed"] == f"{row['caption_en']}, by {row['by']}" for row in pictures)
    drawings = [row for row in pictures if row["by"] != "stamp"]
    assert {(row["by"], row["label"]) for row in drawings} == {
        (artist, thing) for artist in things.ARTISTS if artist != COPYIST for thing in CODE_POINTS
    }
    for row in drawings:
        held_out = things.ARTIST.get(row["by"])
        assert row["split"] == (f"{held_out}/artist" if held_out else "train")
        assert len([name for name in row if name.startswith("caption_")]) == (10 if held_out else 3)
        assert row["credit"] == f"{row['by'].title()}, Free"
    stamps = [row for row in pictures if row["by"] == "stamp"]
    assert len(stamps) == 3
    assert len({row["label"] for row in stamps if row["split"] == "test/photo"}) == 1
    clips = [row for row in rows if row["by"].startswith("voice")]
    assert {row["split"] for row in clips if "speech_da_file_name" in row} == {"test/voice"}
    french = {row["caption_fr"] for row in clips if "speech_fr_file_name" in row}
    assert french == {"un chat", "un chaton"}
    for row in clips:
        path = next(row[name] for name in row if name.endswith("file_name"))
        assert 0.4 < soundfile.info(tmp_path / "made" / path).duration < 0.7  # without the silence around it
    synthetic = [row for row in rows if row["by"] == "synthesiser"]
    assert {row["split"] for row in synthetic} == {"train"}
    assert {row["caption_da"] for row in synthetic if "caption_da" in row} == {"en kat", "en hund"}
    assert len(synthetic) == 3 * len(things.SPOKEN)
    assert leaks.leaks(tmp_path / "made") == []


@pytest.mark.parametrize(
    "kind, change",
    [
        ("artist: drawings/noto/cat.png", {"by": "emojione"}),
        ("photo: drawings/noto/cat.png", {"by": "stamp", "label": "held out"}),
        ("word: drawings/noto/cat.png", {"by": "voice fr", "label": "held out"}),
        ("voice: drawings/noto/cat.png", {"by": "voice da"}),
        ("copy: drawings/noto/cat.png of drawings/emojione/cat.png", {"picture": "emojione"}),
        (None, {}),
    ],
)
def test_leaks_are_found(making: ModuleType, tmp_path: pathlib.Path, kind: str | None, change: dict[str, str]) -> None:
    import leaks

    row = {"picture_file_name": "drawings/noto/cat.png", "label": "cat", "by": "noto", "split": "train"}
    held_out = {"picture_file_name": "drawings/emojione/cat.png", "label": "cat", "by": "emojione"}
    rows = [row | {name: value for name, value in change.items() if name != "picture"}]
    rows += [
        held_out | {"split": "test/artist"},
        held_out | {"split": "test/photo", "label": "held out", "by": "stamp"},
    ]
    rows.append({"speech_fr_file_name": "a.flac", "label": "held out", "by": "voice fr", "split": "validation/word"})
    rows.append({"speech_da_file_name": "b.flac", "label": "cat", "by": "voice da", "split": "test/voice"})
    for artist in ("noto", "emojione"):
        (tmp_path / "drawings" / artist).mkdir(parents=True)
        blocks(change.get("picture", artist)).save(tmp_path / "drawings" / artist / "cat.png")
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = leaks.leaks(tmp_path)
    assert found == ([kind] * (2 if "copy" in kind else 1) if kind else [])


def test_what_is_missing_is_said_with_what_to_type(
    making: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match=r"npm pack --silent @a/b@1\.2"):
        making.Package("npm", "@a/b", "1.2").fetch(tmp_path)
    knobs = ["--data.packages", str(tmp_path), "--data.directory", str(tmp_path / "data")]
    assert main(["prepare", str(THINGS / "experiment.py"), *knobs]) == WRONG_INPUT
    told = capsys.readouterr().err
    assert "tuxpaint-stamps-default_*.deb, cldr-annotations-full-48.2.0.tgz, iconify-json-noto-1.2.9.tgz" in told
    assert f"cd {tmp_path} && apt-get download tuxpaint-stamps-default && npm pack" in told
    (tmp_path / "npm").write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    with pytest.raises(PlatformError, match="no such package"):
        making.Package("npm", "@a/b", "1.2").fetch(tmp_path)
