"""Data sets of TensorFlow Datasets as folders: `tfds:NAME`, or `tfds:NAME[SPLIT]`; the split `train` by default.

A record has a file for each feature that a modality reads: pictures, sounds, texts, classes by their names, numbers.
TensorFlow isn't needed, but TFDS itself needs it for sounds.
"""

from __future__ import annotations

import functools
import io
import re
from typing import Any, BinaryIO

import numpy as np
from etils import epy

from omnijax.errors import ConfigError

with epy.lazy_imports():
    import soundfile
    import tensorflow_datasets as tfds
    from PIL import Image

PREFIX = "tfds:"


@functools.lru_cache(maxsize=2)
def _records(name: str) -> Any:
    """The records of a TFDS data set. Raises a `ConfigError` if it doesn't exist, or if it can't be built here."""
    parts = re.fullmatch(rf"{PREFIX}([^\[\]]+)(?:\[(.+)\])?", name)
    if parts is None:
        raise ConfigError("folder", name, "a TFDS data set is tfds:NAME, or tfds:NAME[SPLIT]", "mend the name")
    try:
        return tfds.data_source(parts[1], split=parts[2] or "train")
    except (ImportError, ValueError, OSError, AssertionError, tfds.core.DatasetNotFoundError) as error:
        told = str(error).strip().split("\n")[0]
        raise ConfigError("folder", name, f"TFDS can't give it ({told})", "see tensorflow.org/datasets") from error


def features(name: str) -> tuple[int, dict[str, str], str, list[str]]:
    """What a data set has: number of records, file ending of each feature, feature of classes, what is left out.

    Raises a `ConfigError` as `_records`, or if there is no feature that a modality reads.
    """
    records, endings, classes, left = _records(name), dict[str, str](), list[str](), []
    for feature, kind in sorted(records.dataset_info.features.items()):
        dtype = np.dtype(kind.np_dtype) if getattr(kind, "np_dtype", None) else None
        if isinstance(kind, tfds.features.Image) and dtype in (np.uint8, np.uint16):
            endings[feature] = "png"
        elif isinstance(kind, tfds.features.Audio) and kind.sample_rate:
            endings[feature] = "wav"
        elif isinstance(kind, tfds.features.Video) or kind.shape != ():
            left.append(f"the feature {feature!r} of {name} is left out: no modality reads {type(kind).__name__}")
        else:
            endings[feature] = "txt"
            classes += [feature] * isinstance(kind, tfds.features.ClassLabel)
    if not endings:
        raise ConfigError("folder", name, f"no feature can be read ({'; '.join(left)})", "choose another data set")
    return len(records), endings, "label" if "label" in classes else next(iter(classes), ""), left


def opened(name: str, path: str) -> BinaryIO:
    """A feature of a record as a file, by `PLACE/FEATURE.ENDING`."""
    place, _, file = path.partition("/")
    feature, _, ending = file.rpartition(".")
    records = _records(name)
    value, kind, stream = records[int(place)][feature], records.dataset_info.features[feature], io.BytesIO()
    if ending == "png":
        picture = value[..., 0] if value.shape[-1] == 1 else value
        Image.fromarray(picture).save(stream, format="PNG", compress_level=1)
    elif ending == "wav":
        soundfile.write(stream, np.asarray(value).astype(np.int16), int(kind.sample_rate), format="WAV")  # of 16 bits
    elif isinstance(kind, tfds.features.ClassLabel):
        stream.write(kind.int2str(int(value)).encode())
    else:
        stream.write(value if isinstance(value, bytes) else str(value).encode())
    stream.seek(0)
    return stream
