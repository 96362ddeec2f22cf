"""Fetches checkpoints: resumable, atomic, checked against the hash in their names."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from riformer_deploy.checkpoints.resumable_transfer import DEFAULT_PATIENCE, Patience, transfer
from riformer_deploy.common.errors import DownloadError, OptionError
from riformer_deploy.common.files import locked
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.interruption import kept_on_interruption
from riformer_deploy.common.progress import CountCallback, uncounted
from riformer_deploy.common.replacing import sync_directory, sync_file
from riformer_deploy.model.variants import Variant, find_variant, get_variant

_LOG = logging.getLogger(__name__)
_SCHEMES = {"https"}
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LONGEST_NAME = 200  # bytes; most file systems take 255, and the names of parts are longer
_HASHED = re.compile(r"-([0-9a-f]{8,64})\.[^.]+$")  # the convention of torch.hub and OpenMMLab

PUBLISHED_AT = "https://download.openmmlab.com/mmclassification/v1/riformer/"
"""The folder that mmpretrain's metafile names; the files' names are the variants'."""


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """Where from, where to, and how patiently.

    Attributes:
        folder: Where the file goes; it is created.
        mirror: Another folder that holds the files, as a URL; None for OpenMMLab's.
        patience: How long to try.
    """

    folder: Path | str
    mirror: str | None = None
    patience: Patience = DEFAULT_PATIENCE

    def __post_init__(self) -> None:
        if self.mirror is not None and _split(self.mirror).scheme not in {"http", "https"}:
            raise OptionError(f"--mirror must be an http or https URL, got {self.mirror!r}.")

    def url_of(self, variant: Variant) -> str:
        """Where a variant's file is fetched from."""
        return (self.mirror or PUBLISHED_AT).rstrip("/") + "/" + variant.file_name


@dataclass(frozen=True, kw_only=True)
class DownloadReport:
    """What ``download`` did.

    Attributes:
        path: The file.
        url: Where it is published.
        sha256: Of its content; it begins as the file's name says.
        size_bytes: Its size.
        fetched_bytes: What came over the network this time; 0 if the file was there already.
    """

    path: str
    url: str
    sha256: str
    size_bytes: int
    fetched_bytes: int


def download_checkpoint(
    variant: Variant, options: DownloadOptions, count: CountCallback = uncounted
) -> DownloadReport:
    """Fetch a published checkpoint; a file that is there already and is whole is not fetched again.

    What has come so far is kept beside the final name (``.part``) and is gone on with by the next
    attempt or the next command. Proxies are taken from the environment (``https_proxy``, ``no_proxy``).

    Args:
        variant: The published model.
        options: Where from and where to.
        count: Called with how far it is.

    Raises:
        DownloadError: The server cannot be reached, refuses, or what came is not that file; or another
            process is fetching it.
        OptionError: The folder cannot be written.
    """
    return _fetch(options.url_of(variant), variant.file_name, variant.sha256_prefix, options, count)


def download_url(url: str, options: DownloadOptions, count: CountCallback = uncounted) -> DownloadReport:
    """Fetch the file at a URL, under the last part of its path as its name.

    Args:
        url: https. Where the name ends in a hash, such as ``model-94f8a1d2.pth``, the content must have it.
        options: Where to; its mirror does not count.
        count: Called with how far it is.

    Raises:
        DownloadError: As :func:`download_checkpoint`.
        OptionError: The URL is not https or names no file, or a file of that name is there whose content
            no hash in its name vouches for.
    """
    parts = _split(url)
    name = unquote(parts.path).rpartition("/")[2]
    usable = name not in {"", ".", ".."} and name.isprintable() and len(name.encode()) <= _LONGEST_NAME
    if parts.scheme.lower() not in _SCHEMES or not parts.netloc or not usable:
        raise OptionError(
            f"{url} cannot be fetched: the https address of a file was expected.",
            remedy="Download it by other means, and give the file.",
        )
    path, hashed = Path(options.folder) / name, _HASHED.search(name)
    if hashed is None and path.exists():
        raise OptionError(
            f"{path} is there already, and nothing tells whether it is the file at {url}.",
            remedy=f"Give {path} itself, or remove it to fetch it anew.",
        )
    return _fetch(url, name, hashed[1] if hashed else None, options, count)


def _split(url: str) -> SplitResult:
    """The parts of a URL; all of them empty where it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _fetch(
    url: str, name: str, prefix: str | None, options: DownloadOptions, count: CountCallback
) -> DownloadReport:
    """Fetch a file; ``prefix`` is what its sha256 begins with, None where that is not known."""
    folder = Path(options.folder)
    path = folder / name
    if prefix is not None and path.is_file() and sha256_of(path).startswith(prefix):
        return _report(path, url, fetched_bytes=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{name}.part", url) as part:
            if prefix is None:
                os.truncate(part, 0)  # nothing could tell that two halves are of one file
            had = part.stat().st_size
            with kept_on_interruption(lambda: _kept(part) if prefix is not None else ""):
                fetched = transfer(url, part, options.patience, count)
            if had and prefix is not None and not sha256_of(part).startswith(prefix):
                _LOG.warning("what was kept of an earlier attempt is not this file's; fetching it anew")
                os.truncate(part, 0)
                fetched = transfer(url, part, options.patience, count)
            if prefix is not None:
                _check(name, prefix, url, part)
            sync_file(part)
            part.replace(path)
            sync_directory(folder)
    except OSError as err:
        raise OptionError(
            f"{path} cannot be written: {err}", remedy="Choose another folder with -o."
        ) from err
    return _report(path, url, fetched_bytes=fetched)


def _kept(part: Path) -> str:
    size_bytes = part.stat().st_size
    return f"{size_bytes:,} bytes are kept in {part}" if size_bytes else ""


def _report(path: Path, url: str, *, fetched_bytes: int) -> DownloadReport:
    return DownloadReport(
        path=str(path),
        url=url,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        fetched_bytes=fetched_bytes,
    )


@contextlib.contextmanager
def _locked(part: Path, url: str) -> Iterator[Path]:
    """One process at a time appends to a ``.part`` file, which must be a plain file of its own."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(part, flags, 0o666)
    except OSError as err:
        if err.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise
        raise _no_plain_file(part) from err
    state = os.fstat(descriptor)
    os.close(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
        raise _no_plain_file(part)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(part, blocking=False))
        except BlockingIOError as err:
            raise DownloadError(f"Another process is fetching {url} into {part}.") from err
        try:
            yield part
        finally:
            if part.exists() and part.stat().st_size == 0:
                part.unlink(missing_ok=True)


def _no_plain_file(part: Path) -> OptionError:
    return OptionError(
        f"{part} is a link, has another name, or is no plain file; what comes is not written through it.",
        remedy="Remove it, or choose another folder with -o.",
    )


def _check(name: str, prefix: str, url: str, part: Path) -> None:
    found = sha256_of(part)
    if found.startswith(prefix):
        return
    size = part.stat().st_size
    with part.open("rb") as file:
        begin = file.read(15)
    part.unlink()
    what = ", a web page by its beginning" if begin.lstrip().lower().startswith((b"<!", b"<html")) else ""
    raise DownloadError(
        f"What came from {url} is not {name}: {size:,} bytes{what} with the sha256 {found}, "
        f"which should begin with {prefix}. It was removed.",
        remedy=f"Try again, or fetch it by hand from another network: {url}",
    )


_LIKE_A_NAME = re.compile(r"(riformer-)?[sm][0-9]{1,3}(_in1k)?(-[0-9]+(px)?)?", re.IGNORECASE)
"""What is written as the published names are, so that it is no path of a file."""


def named_checkpoint(
    argument: Path | str, options: DownloadOptions, count: CountCallback = uncounted
) -> Path:
    """The file that a command's argument means: itself, or the one of that name or URL, fetched.

    Args:
        argument: A path, a published name such as ``riformer-s12_in1k`` or ``s12``, or an https URL; a
            file of that name goes first.
        options: Where to fetch from and to.
        count: Called with how far it is.

    Raises:
        DownloadError: As :func:`download_checkpoint`.
        OptionError: As :func:`download_url`; or there is no such file, and the argument looks like a name but
            is none.
    """
    text = str(argument)
    path, is_url = Path(argument), _URL.match(text) is not None
    if not (_LIKE_A_NAME.fullmatch(text) or find_variant(text) or is_url) or path.exists():
        return path
    variant = None if is_url else get_variant(text)
    if variant is not None:
        return Path(download_checkpoint(variant, options, count).path)
    return Path(download_url(str(argument), options, count).path)
