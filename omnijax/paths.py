"""Paths of local files, and of objects on a store: `gs://BUCKET/…`, and `s3://BUCKET/…` for raw files.

`as_path` gives a `pathlib.Path`, or a `upath.UPath`, which has the same methods. An object can't be appended to or
renamed. It is written as a whole, and a condition on its generation (https://cloud.google.com/storage/docs/
request-preconditions) makes several writers take turns. `swap` is that condition; locks and logs stand on it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

from etils import epy

from omnijax.errors import ConfigError, shortened

os.environ.setdefault("EPATH_USE_TF", "0")  # Orbax's paths otherwise go through TensorFlow where it is installed
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # gcsfs would ask for a bucket's kind, by gRPC
with epy.lazy_imports():
    import fsspec.config
    import upath
    from google.cloud import storage

COPIED_BYTES = 2**36
"""When the copies are larger, those that weren't used for the longest time are deleted."""


def as_path(text: str | os.PathLike[str]) -> Path:
    """A path. On a store it is a `upath.UPath`, which only lacks `os.fspath`; `str` gives its address.

    Raises a `ConfigError` if a package for this store is missing, or if no such store is supported.
    """
    if "://" not in (address := str(text)):
        return Path(text)
    protocol = address.partition("://")[0]
    if protocol not in ("gs", "s3") or not address.partition("://")[2].strip("/"):
        raise ConfigError("path", address, "it must be a local path, gs://BUCKET/… or s3://BUCKET/…", "give one")
    if any(one in address for one in ("*", "?", "[", "]", "::")):
        rule = "an address on a store has no *, ?, [, ] and ::, which its packages read as patterns"
        raise ConfigError("path", address, rule, "choose another name")
    try:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs the errors that it raises, too
        settings = fsspec.config.conf.setdefault(protocol, {})
        settings["use_listings_cache"] = False  # other processes change what a folder holds
        if "STORAGE_EMULATOR_HOST" in os.environ:
            settings["token"] = "anon"
        path = cast(Path, upath.UPath(address.rstrip("/")))
        _ = _files(path), protocol == "gs" and storage.Client  # imports what the store needs
        return path
    except ImportError as error:
        fix = f"pip install 'omnijax[{protocol}]'"
        raise ConfigError("path", address, f"{protocol}:// needs further packages ({error})", fix) from error


def check_reachable(path: Path, field: str) -> None:
    """Checks that a store can be reached and that objects of its bucket can be listed.

    Raises a `ConfigError` for `field` if it can't, or if its bucket doesn't exist.
    """
    if str(path).startswith("s3:"):
        raise ConfigError(field, str(path), "s3:// is for raw files only", "give a path of gs://, or a local one")
    try:
        with translated(path):
            next(iter(_bucket(path).list_blobs(max_results=1)), None)
    except OSError as error:
        rule = f"the store must be reachable ({shortened(' '.join(str(error).split()))})"
        raise ConfigError(field, str(path), rule, "check the name of the bucket, and your credentials") from error


def is_remote(path: Path) -> bool:
    """Whether a path is on a store."""
    return not isinstance(path, Path)


def files_below(folder: Path) -> dict[str, tuple[int, str]]:
    """Size in bytes and version of each file below a folder, by relative path. Each change gives another version."""
    if is_remote(folder):
        start = len(_key(folder).rstrip("/")) + 1
        with translated(folder):
            found = _files(folder).find(_key(folder), detail=True)
        stamps = {name: str(one.get("generation") or one.get("ETag")) for name, one in found.items()}
        return {name[start:]: (one["size"], stamps[name]) for name, one in sorted(found.items())}
    local = ((path.relative_to(folder).as_posix(), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return {name: (one.st_size, str(one.st_mtime_ns)) for name, one in local}


def delete_tree(path: Path) -> None:
    """Deletes a folder with all that is in it, if it is there."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with translated(path):
        for name in _files(path).find(_key(path)):
            _files(path).rm_file(name)


def move(path: Path, target: Path) -> None:
    """Moves a file or a folder; on a store each file is copied."""
    if is_remote(path):
        with translated(path):
            _files(path).mv(_key(path), _key(target), recursive=True)
    else:
        path.rename(target)


def local_copy(path: Path) -> Path:
    """A local file with the content of a file: itself, or a copy in the user's cache, made when it is first needed.

    A copy belongs to one version of the object, so that it is never out of date.
    """
    if not is_remote(path):
        return path
    with translated(path):
        copy = _copy_of(path)
        if not copy.exists():
            shrink(copy.parent, COPIED_BYTES)
            temporary = copy.with_name(uuid.uuid4().hex)  # `shrink` deletes what a kill leaves
            _files(path).get_file(_key(path), str(temporary))
            temporary.replace(copy)
    return copy


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A local path to write a file to; afterwards the file is at `path`. An error or a kill leaves no file there."""
    if not is_remote(path):
        temporary = path.with_name(f".{path.name}.tmp")
        yield temporary
        temporary.replace(path)
        return
    temporary = user_cache("files") / uuid.uuid4().hex
    try:
        yield temporary
        with translated(path):
            _files(path).put_file(str(temporary), _key(path))
            temporary.replace(_copy_of(path))
    finally:
        temporary.unlink(missing_ok=True)


def read_version(path: Path) -> tuple[bytes, int]:
    """The content of an object on `gs://` and its generation; b"" and 0 if there is none."""
    with translated(path):
        blob = _bucket(path).get_blob(_key(path).partition("/")[2])
        generation = 0 if blob is None else int(blob.generation)  # before the content: a later one can't be replaced
        return (blob.download_as_bytes() if blob is not None else b""), generation


def swap(path: Path, generation: int, content: bytes) -> int:
    """Replaces an object that still has this generation, or creates it if that is 0; returns the new generation.

    Returns 0, and writes nothing, if the object has another generation because somebody else has written it.
    """
    try:
        with translated(path):
            blob = _bucket(path).blob(_key(path).partition("/")[2])
            blob.upload_from_string(content, "application/octet-stream", if_generation_match=generation)
    except InterruptedError:
        there, other = read_version(path)  # the client may have repeated a request that had succeeded
        return other if there == content and other != generation else 0
    return int(blob.generation)


def store_errors() -> tuple[type[Exception], ...]:
    """The base errors of the store packages that are loaded. They raise `OSError`, too."""
    modules = {"aiohttp": "ClientError", "botocore.exceptions": "BotoCoreError", "gcsfs.retry": "HttpError"}
    modules |= {"google.api_core.exceptions": "GoogleAPIError", "google.auth.exceptions": "GoogleAuthError"}
    return tuple(getattr(sys.modules[module], name) for module, name in modules.items() if module in sys.modules)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns the errors of the store packages into an `OSError` that names the path."""
    if not is_remote(path):
        yield
        return
    errors = store_errors()
    try:
        yield
    except errors as error:
        kind = InterruptedError if getattr(error, "code", 0) == HTTPStatus.PRECONDITION_FAILED else OSError
        raise kind(errno.EIO, " ".join(str(error).split()), str(path)) from error


def user_cache(name: str) -> Path:
    """A folder of the user's cache, which is made if needed.

    Raises an `OSError` or a `RuntimeError` if there is no home directory, or if it can't be written to.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omnijax" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shrink(directory: Path, most_bytes: int) -> None:
    """Deletes the files that weren't used for the longest time until the directory is no larger than this."""
    files = []
    for entry in os.scandir(directory):
        with contextlib.suppress(OSError):  # another process has deleted it
            found = entry.stat()
            files.append((max(found.st_atime, found.st_mtime), found.st_size, entry.path))
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > most_bytes:
            with contextlib.suppress(OSError):
                os.unlink(path)


@functools.lru_cache(maxsize=8)
def _bucket_of(name: str) -> Any:
    return storage.Client().bucket(name)


def _bucket(path: Path) -> Any:
    return _bucket_of(_key(path).partition("/")[0])


def _files(path: Path) -> Any:
    return cast(Any, path).fs


def _key(path: Path) -> str:
    """The bucket, and the name of the object in it."""
    return str(cast(Any, path).path)


def _copy_of(path: Path) -> Path:
    return user_cache("files") / _files(path).ukey(_key(path))
