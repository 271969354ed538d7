"""Files that a team delivers outside of the home folder: on a file system or in an S3-compatible store, found by patterns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from contracts.errors import BadInput
from contracts.landing import HIDDEN, STORE, WILD
from contracts.settings import store_endpoint, store_region

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, S3FileSystem


@dataclass(frozen=True, kw_only=True)
class StoreFile:
    """A file in a store, with what of `pathlib.Path` those need who read landing files.

    Attributes:
        address: `s3a://bucket/...`.
        size: number of its bytes.
        changed: when it was written.
    """

    address: str
    size: int = field(compare=False)
    changed: datetime = field(compare=False)

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The end of the name, from its last dot on."""
        return Path(self.name).suffix

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Its bytes."""
        assert mode == "rb", mode
        return cast(IO[bytes], BufferedReader(cast(Any, _store().open_input_file(self.address.removeprefix(STORE)))))

    def etag(self) -> str:
        """What the store says of its content: it differs if the content does."""
        metadata = _store().open_input_stream(self.address.removeprefix(STORE)).metadata()
        return cast(bytes, metadata["ETag"]).decode()

    def digest(self) -> bytes:
        """sha256 of its size and of what the store says of its content."""
        return hashlib.sha256(f"{self.size} {self.etag()}".encode()).digest()


AnyFile = Path | StoreFile


def size_of(path: AnyFile) -> int:
    """Number of bytes."""
    return path.size if isinstance(path, StoreFile) else path.stat().st_size


def changed_at(path: AnyFile) -> datetime:
    """When the file was written last, or put where it is: a file that is moved keeps the time of its writing."""
    if isinstance(path, StoreFile):
        return path.changed
    status = path.stat()
    return datetime.fromtimestamp(max(status.st_mtime, status.st_ctime), UTC)


def parquet_source(path: AnyFile) -> Any:
    """What pyarrow opens a Parquet file by."""
    return path if isinstance(path, Path) else _store().open_input_file(path.address.removeprefix(STORE))


def kind_of(address: str) -> Literal["file", "folder"] | None:
    """What lies at a place: a file, a folder, or nothing; a store has a folder where any file lies below it.

    Args:
        address: an absolute path or an `s3a://` address, without wildcards.

    Raises:
        BadInput: the store refuses to tell.
    """
    if not address.startswith(STORE):
        path = Path(address)
        return "file" if path.is_file() else "folder" if path.is_dir() else None
    from pyarrow.fs import FileType

    try:
        info = _store().get_file_info(address.removeprefix(STORE))
    except OSError as error:
        raise _refused(address, error) from None
    return "file" if info.type == FileType.File else "folder" if info.type == FileType.Directory else None


def files_like(pattern: str) -> list[AnyFile]:
    """Files whose whole path fits a pattern, sorted by it; one that ends in `/` stands for the files of that folder.

    Args:
        pattern: an absolute path or an `s3a://` address; `*`, `?` and `[...]` stand for parts of a name. A name that
            begins with a dot or an underscore, of a file or of a folder below the first pattern, is passed over: it is
            still being written, or says something about the others.

    Raises:
        BadInput: the store refuses to list the folder.
    """
    parts = (pattern + "*" if pattern.endswith("/") else pattern).removeprefix(STORE).split("/")
    fixed = next((place for place, part in enumerate(parts) if WILD & set(part)), len(parts) - 1)
    folder, wanted = "/".join(parts[:fixed]), parts[fixed:]
    found = (
        _in_store(pattern, folder, len(wanted) > 1)
        if pattern.startswith(STORE)
        else _local(Path(folder or "/"), len(wanted))
    )
    return sorted((path for path, names in found if _fits(names, wanted)), key=str)


def files_below(folder: str) -> Iterable[AnyFile]:
    """Yields files at any depth of a folder, sorted by path; names that begin with a dot or an underscore are passed over.

    Args:
        folder: an absolute path or an `s3a://` address.

    Raises:
        BadInput: the store refuses to list the folder.
    """
    if folder.startswith(STORE):
        found = sorted(_in_store(folder, folder.removeprefix(STORE), True), key=lambda one: str(one[0]))
        yield from (path for path, names in found if not any(name.startswith(HIDDEN) for name in names))
        return
    for below in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []:
        if below.name.startswith(HIDDEN):
            continue
        if below.is_dir():
            yield from files_below(str(below))
        elif below.is_file():
            yield below


def _fits(names: list[str], wanted: list[str]) -> bool:
    return len(names) == len(wanted) and all(
        fnmatchcase(name, part) and not (name.startswith(HIDDEN) and WILD & set(part[:1]))
        for name, part in zip(names, wanted, strict=True)
    )


def _local(folder: Path, depth: int) -> Iterable[tuple[AnyFile, list[str]]]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if depth == 1 and path.is_file():
            yield path, [path.name]
        elif depth > 1 and path.is_dir():
            yield from ((file, [path.name, *names]) for file, names in _local(path, depth - 1))


def _in_store(pattern: str, folder: str, recursive: bool) -> Iterable[tuple[AnyFile, list[str]]]:
    from pyarrow.fs import FileSelector, FileType

    try:
        infos: list[FileInfo] = _store().get_file_info(FileSelector(folder, allow_not_found=True, recursive=recursive))
    except OSError as error:
        raise _refused(pattern, error) from None
    for info in infos:
        if info.type == FileType.File:
            file = StoreFile(address=STORE + info.path, size=info.size, changed=info.mtime)
            yield file, info.path.removeprefix(folder + "/").split("/")


def _refused(address: str, error: OSError) -> BadInput:
    return BadInput(
        address,
        "path",
        expected="a folder of a bucket that may be listed with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL",
        found=str(error).splitlines()[0],
    )


@cache
def _store() -> S3FileSystem:
    from pyarrow.fs import S3FileSystem

    endpoint = store_endpoint()
    return S3FileSystem(
        region=store_region(),
        endpoint_override=endpoint,
        scheme=endpoint.split("://")[0] if endpoint else "https",
        force_virtual_addressing=False,
    )
