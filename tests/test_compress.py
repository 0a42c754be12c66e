"""`omnijax compress` and `decompress`: bit for bit in another process, at the cost of the exact likelihood."""

from __future__ import annotations

import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import zlib

import hypothesis
import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st
from loaded import load_run
from PIL import Image

from omnijax.cli import main
from omnijax.evaluate.compress_command import MAGIC
from omnijax.evaluate.likelihoods import TOTAL, document_sums, forms_of
from omnijax.modalities import Picture, Sound, Text
from omnijax.run.directory import load_modalities
from omnijax.sample.coding import compressed, restored
from omnijax.sample.generate import documents_of

EXPERIMENT = '''
"""A text, a picture and a sound, each by itself."""

import dataclasses

import numpy as np

from omnijax.config import BatchConfig, Config, EvalConfig, ModelConfig, Task, TrainConfig, Writing
from omnijax.modalities import Picture, Sound, Text
from omnijax.source import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Three(Source):
    @property
    def fields(self):
        return {
            "text": Text(most=12),
            "picture": Picture(height=4, width=4, channels=3, variable=True, colours="green"),
            "sound": Sound(rate_hz=8000, block=2, most=8),
            "name": Picture(name="name", height=1, width=2, levels=4, patch=1),
        }

    def records(self, split):
        random = np.random.default_rng(0)
        return [
            {
                "text": "".join(random.choice(list("abc "), 9)),
                "picture": random.integers(0, 30, (4, 4, 3)).astype(np.uint8),
                "sound": random.integers(-30, 30, (15, 1)).astype(np.int16),
                "name": np.zeros((1, 2), np.uint8),
            }
            for _ in range(16)
        ]


def get_config():
    tasks = tuple(Task((name,), (1.0,)) for name in ("text", "picture", "sound"))
    tasks += (Task(("sound", "name"), (1.0, 1.0)),)
    return Config(
        Three(),
        BatchConfig(tasks, size=8, sequence_length=256, sequence_items=24),
        model=ModelConfig(depth=1, width=16, heads=2, kv_heads=1, head_size=8, mlp_width=16, head="HEAD"),
        writing=Writing(base=16),
        train=TrainConfig(steps=30, checkpoint_every=30),
        eval=EvalConfig(batch_size=8, examples=4),
    )
'''
TEXT = "abc cba\n\nbac é \U0001f993 ccc".encode() + b"\xff\x00" + b"a cab" * 9
"""More than fits one item of the field, not all of it UTF-8."""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A place of its own for what this user trusts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def trained(folder: pathlib.Path, head: str) -> pathlib.Path:
    (folder / "three.py").write_text(EXPERIMENT.replace("HEAD", head))
    assert main(["train", str(folder / "three.py"), "--workdir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(home, tmp_path_factory) -> pathlib.Path:
    return trained(tmp_path_factory.mktemp("three"), "depth")


def texts(folder: pathlib.Path) -> pathlib.Path:
    (folder / "a.txt").write_bytes(TEXT)
    return folder / "a.txt"


def pictures(folder: pathlib.Path) -> pathlib.Path:
    """Tiles of several sizes."""
    pixels = np.random.default_rng(1).integers(0, 256, (10, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "b.png")
    return folder / "b.png"


def sounds(folder: pathlib.Path) -> pathlib.Path:
    samples = np.random.default_rng(2).integers(-(2**15), 2**15, (39, 1)).astype(np.int16)
    soundfile.write(folder / "c.flac", samples, 8000, subtype="PCM_16")
    return folder / "c.flac"


def content(path: pathlib.Path) -> object:
    """What has to come back: bytes, pixels, samples."""
    if path.suffix == ".txt":
        return path.read_bytes()
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return picture.mode, np.asarray(picture).tolist()
    return soundfile.read(path, dtype="int16")[0].tolist()


def refused(arguments: list, capsys: pytest.CaptureFixture) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "Fix: " in said
    return said


# ---------------------------------------------------------------------- there and back


@pytest.mark.parametrize("head", ["token", "depth"])
def test_files_come_back_bit_for_bit_in_another_process(head, run, tmp_path, capsys) -> None:
    run = run if head == "depth" else trained(tmp_path, head)
    for make, field, ending in ((texts, "text", ".txt"), (pictures, "picture", ".png"), (sounds, "sound", ".wav")):
        file = make(tmp_path)
        there = tmp_path / f"{file.name}.omnijax"
        assert main(["compress", str(run), str(file), "--field", field]) == 0
        payload = int(re.search(r" in ([\d,]+), ", capsys.readouterr().out)[1].replace(",", ""))
        assert there.stat().st_size - payload == there.read_bytes().index(b"\n") + 1
        back = tmp_path / "back" / f"{field}{ending}"
        again = f"import sys, omnijax.cli; sys.exit(omnijax.cli.main({['decompress', str(run), str(there)]!r}"
        subprocess.run([sys.executable, "-c", f"{again} + ['--out', {str(back)!r}]))"], check=True)
        assert content(back) == content(file)


def test_decompressed_files_get_the_name_of_the_original(run, tmp_path, capsys) -> None:
    file = sounds(tmp_path)
    assert main(["compress", str(run), str(file)]) == 0
    assert main(["decompress", str(run), f"{file}.omnijax"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(file.with_suffix(".wav"))
    assert content(file.with_suffix(".wav")) == content(file)


def test_an_empty_text_comes_back(run, tmp_path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    assert main(["compress", str(run), str(tmp_path / "empty.txt"), "--field", "text"]) == 0
    (tmp_path / "empty.txt").unlink()
    assert main(["decompress", str(run), str(tmp_path / "empty.txt.omnijax")]) == 0
    assert (tmp_path / "empty.txt").read_bytes() == b""


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(st.lists(st.binary(max_size=12), min_size=8, max_size=8))
def test_any_texts_come_back(run, given) -> None:
    loaded = load_run(run)
    items = Text(most=12).encode(given).split()
    payload = compressed(loaded.generator, "text", items)
    found = restored(loaded.generator, "text", len(given), payload)
    assert [Text().exactly(one) for one in found] == given


@pytest.mark.parametrize("field", ["text", "picture", "sound"])
def test_the_payload_costs_what_the_likelihood_says(field, run) -> None:
    random, loaded = np.random.default_rng(3), load_run(run)
    signals = {
        "text": ["".join(random.choice(list("abc x"), random.integers(13))) for _ in range(100)],
        "picture": [random.integers(0, 40, (*random.integers(1, 5, 2), 3)).astype(np.uint8) for _ in range(50)],
        "sound": [random.integers(-40, 40, (random.integers(1, 17), 1)).astype(np.int16) for _ in range(50)],
    }[field]
    items = load_modalities(run, loaded.config)[field].encode(signals).split()
    (form,) = [one for one in forms_of(loaded.config) if one.fields == (field,)]
    of_run = (loaded.config, loaded.generator.model, loaded.generator.params)
    sums = document_sums(*of_run, documents_of(loaded.config, {field: items}), form, TOTAL)
    bits = float((sums["renormalised"].astype(np.float64) + sums["structure"]).sum())
    payload = compressed(loaded.generator, field, items)
    assert bits > 2_000
    assert 8 * len(payload) == pytest.approx(bits, rel=0.01, abs=64)


# ---------------------------------------------------------------------- files into signals


@pytest.mark.parametrize("make", [texts, pictures, sounds])
def test_cut_signals_fit_the_limits_and_paste_into_the_file(make, run, tmp_path) -> None:
    file, config = make(tmp_path), load_run(run).config
    fields = {texts: "text", pictures: "picture", sounds: "sound"}
    modality = config.data.fields[fields[make]]
    with file.open("rb") as stream:
        signals, told = modality.cut(stream)
    assert len(signals) > 1
    least, most = modality.limits[-1]
    for one in modality.encode(signals).split():
        assert least <= len(one.part) - (len(modality.limits) - 1) <= most  # behind the header
    modality.paste(signals, json.loads(json.dumps(told)), buffer := io.BytesIO())
    out = tmp_path / f"out{modality.suffix or '.txt'}"
    out.write_bytes(buffer.getvalue())
    assert content(out) == content(file)


def test_texts_are_cut_at_lines_and_words() -> None:
    assert Text(most=7).cut(io.BytesIO(b"one two\nthree four"))[0] == [b"one", b" two\n", b"three", b" four"]
    assert Text(most=3).cut(io.BytesIO(b"abcdefgh"))[0] == [b"abc", b"def", b"gh"]


def test_pictures_of_one_size_are_filled_up() -> None:
    pixels = np.arange(15, dtype=np.uint8).reshape(5, 3)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
    tiles, told = Picture(height=2, width=2).cut(buffer)
    assert [tile.shape for tile in tiles] == [(2, 2)] * 6
    Picture(height=2, width=2).paste(tiles, told, out := io.BytesIO())
    assert np.asarray(Image.open(out)).tolist() == pixels.tolist()


@pytest.mark.parametrize(
    ("picture", "options", "why"),
    [
        (Image.new("L", (4, 4)), {}, "mode L"),
        (Image.new("P", (4, 4)), {}, "mode P"),
        (Image.new("RGBA", (4, 4)), {}, "mode RGBA"),
        (Image.new("RGB", (4, 4)), {"transparency": (1, 2, 3)}, "transparent"),
        (Image.new("RGB", (4, 4)), {"exif": {274: 6}}, "turned"),
    ],
)
def test_pictures_that_would_be_changed_are_refused(picture, options, why, run, tmp_path, capsys) -> None:
    if "exif" in options:
        options = {"exif": (exif := Image.Exif())}
        exif[274] = 6
    picture.save(tmp_path / "a.png", **options)
    said = refused(["compress", run, tmp_path / "a.png"], capsys)
    assert why in said
    assert "so that nothing is changed" in said


def test_sounds_that_would_be_changed_are_refused(run, tmp_path, capsys) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(9, np.int16), 16_000)
    assert "8,000 Hz" in refused(["compress", run, tmp_path / "a.wav"], capsys)


# ---------------------------------------------------------------------- bad input


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("whole")
    assert main(["compress", str(run), str(texts(folder)), "--field", "text"]) == 0
    return folder / "a.txt.omnijax"


@pytest.mark.parametrize("place", ["start", "header", "line", "payload", "end", "empty"])
def test_damaged_files_are_refused(place, run, whole, tmp_path, capsys) -> None:
    data = bytearray(whole.read_bytes())
    at = {"start": 0, "header": 40, "line": data.index(b"\n"), "payload": len(data) - 9}
    if place in at:
        data[at[place]] ^= 1
    data = data[:-1] if place == "end" else data[: 0 if place == "empty" else None]
    (tmp_path / "bad.omnijax").write_bytes(data)
    said = refused(["decompress", run, tmp_path / "bad.omnijax", "--out", tmp_path / "out.txt"], capsys)
    assert ("didn't make it" if place in ("start", "empty") else "damaged") in said
    assert not (tmp_path / "out.txt").exists()


def rewritten(whole: pathlib.Path, out: pathlib.Path, **changes: object) -> pathlib.Path:
    """The file with another header, and a checksum that fits."""
    line, _, payload = whole.read_bytes().partition(b"\n")
    header = json.loads(line[len(MAGIC) + 9 :]) | changes
    written = json.dumps(header).encode()
    out.write_bytes(MAGIC + b"%08x " % zlib.crc32(written) + written + b"\n" + payload)
    return out


def test_the_file_of_another_run_is_refused(run, whole, tmp_path, capsys) -> None:
    other = rewritten(whole, tmp_path / "other.omnijax", run="0" * 64)
    assert "another run compressed" in refused(["decompress", run, other], capsys)


def test_other_numbers_are_found_out(run, whole, tmp_path, capsys) -> None:
    """As on a machine whose floats differ: what is decoded isn't what was coded."""
    other = rewritten(whole, tmp_path / "other.omnijax", raw=1, device="TPU v9")
    said = refused(["decompress", run, other, "--out", tmp_path / "out.txt"], capsys)
    assert "this processor computes other floats" in said
    assert "TPU v9" in said
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("place", [0, 9, 30])
def test_another_payload_is_never_taken_for_the_file(place, run, whole, tmp_path, capsys) -> None:
    """With a checksum that fits: the coder reads other tokens, or none."""
    line, _, payload = whole.read_bytes().partition(b"\n")
    changed = payload[:place] + bytes([payload[place] ^ 0x55]) + payload[place + 1 :]
    (tmp_path / "changed").write_bytes(line + b"\n" + changed)
    other = rewritten(tmp_path / "changed", tmp_path / "other.omnijax", payload=[len(changed), zlib.crc32(changed)])
    said = refused(["decompress", run, other, "--out", tmp_path / "out.txt"], capsys)
    assert "computes other floats" in said
    assert not (tmp_path / "out.txt").exists()


def test_no_file_is_written_over(run, whole, tmp_path, capsys) -> None:
    file = texts(tmp_path)
    assert "there is a file of this name" in refused(["compress", run, file, "--field", "text", "--out", file], capsys)
    assert "there is a file of this name" in refused(["decompress", run, whole], capsys)  # beside the original
    assert file.read_bytes() == TEXT


def test_fields_that_cant_be_compressed_are_refused(run, tmp_path, capsys) -> None:
    file = texts(tmp_path)
    assert "there is no such file" in refused(["compress", run, tmp_path / "nothing.txt"], capsys)
    shutil.copy(file, tmp_path / "a.xyz")
    assert "none of the lossless fields" in refused(["compress", run, tmp_path / "a.xyz"], capsys)
    said = refused(["compress", run, file, "--field", "name"], capsys)  # only ever follows a sound
    assert "text, picture, sound" in said


def test_without_the_coder_the_error_says_what_to_install(run, whole, tmp_path) -> None:
    hide = (
        "import sys; sys.modules['constriction'] = None; import omnijax.cli; sys.exit(omnijax.cli.main(sys.argv[1:]))"
    )
    out = tmp_path / "out.txt"
    for command in (["compress", run, texts(tmp_path), "--field", "text"], ["decompress", run, whole, "--out", out]):
        done = subprocess.run([sys.executable, "-c", hide, *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 2
        assert "pip install 'omnijax[compress]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_sounds_are_cut_by_their_longest_item() -> None:
    samples = np.arange(39, dtype=np.int16)[:, None]
    soundfile.write(buffer := io.BytesIO(), samples, 8000, format="WAV", subtype="PCM_16")
    buffer.seek(0)
    assert [len(one) for one in Sound(rate_hz=8000, block=2, most=8).cut(buffer)[0]] == [16, 16, 7]
