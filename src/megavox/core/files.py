"""File safety: nothing is ever half-written, and nothing unsafe is loaded.

`write_*` write to a temporary name beside the target, flush it to the disk and rename it.
`whole_folder` does the same for a folder: it appears under its name complete or not at all.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from megavox.core.errors import MachineError, WorkspaceError

TEMPORARY = ".unfinished-"  # prefix of every file or folder that is still being written


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, an exhausted quota or a read-only place into a `MachineError` that names it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise MachineError(f"writing is not allowed ({error.strerror})", where=path,
                               fix="Choose another place (--workspace, --output), or allow writing there") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(
                f"no space left while writing ({error.strerror})", where=path,
                fix="Free some space or choose another place (--workspace, --output), then run the "
                    "same command again: what was finished is kept") from error
        raise


@contextmanager
def whole_file(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`.

    Args:
        path: the final name. Its folder is made if need be.
        suffix: suffix of the temporary name, for writers that go by it (`.nii.gz`).
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path: Path, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it is synced and takes `path`'s place.

    Without `replace` a folder that stands there meanwhile is left alone, and the new one is dropped.

    A folder that stood there is moved aside whole first: whoever is killed in between leaves nothing
    under the name, never a part.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
        try:
            yield temporary
            for folder, _, names in os.walk(temporary):
                for name in names:
                    with Path(folder, name).open("rb+") as stream:
                        os.fsync(stream.fileno())
                _sync_folder(Path(folder))
            temporary.chmod(0o755)
            aside = temporary.with_name(temporary.name + "-old")
            if path.exists():
                if not replace:
                    shutil.rmtree(temporary, ignore_errors=True)
                    return
                path.replace(aside)
            temporary.replace(path)
            _sync_folder(path.parent)
            shutil.rmtree(aside, ignore_errors=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half-written directly inside `folder`."""
    for path in folder.glob(TEMPORARY + "*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON. NumPy scalars and arrays are allowed; NaN becomes null."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        WorkspaceError: the file is not there or is damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise WorkspaceError("this file is not there", where=path,
                             fix="Run the stage that makes it first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"the file is damaged ({error})", where=path,
                             fix="Remove it and run the stage that makes it again") from None


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to a CSV file, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def make_folder(path: Path, fix: str) -> None:
    """Make a folder, and those above it, where they are not there.

    Raises:
        MachineError: it cannot be made; `fix` says what to do.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"this folder cannot be made ({error.strerror})", where=path, fix=fix) from None


def refresh(folder: Path) -> None:
    """Have a shared folder looked at anew: network file systems remember for up to a minute that a file was not there,
    or how long it was, until the folder is changed."""
    with suppress(OSError), tempfile.TemporaryFile(dir=folder):
        pass


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as a list of rows; every value is a string.

    Raises:
        WorkspaceError: the file is not there or is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return list(csv.DictReader(stream))
    except FileNotFoundError:
        raise WorkspaceError("this file is not there", where=path,
                             fix="Run the stage that makes it first") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise WorkspaceError(f"the file is damaged ({error})", where=path,
                             fix="Remove it and run the stage that makes it again") from None


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, whole or not at all."""
    data = io.BytesIO()  # NumPy's own write to a file hides that the disk is full
    np.save(data, array, allow_pickle=False)
    write_bytes(path, data.getbuffer())


def read_array(path: Path) -> np.ndarray:
    """Read an array written by `write_array`. Never unpickles."""
    return np.load(path, allow_pickle=False)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def text_hash(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """Turn NumPy values, paths and not-a-numbers into what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
