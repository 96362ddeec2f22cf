"""One file over HTTP: resumed where it broke off, from a server that may stall, lie or redirect."""

from __future__ import annotations

import http.client
import logging
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from riformer_deploy.common.errors import DownloadError, OptionError
from riformer_deploy.common.progress import CountCallback

_LOG = logging.getLogger(__name__)
_PIECE_BYTES = 1 << 18
_LARGEST_BYTES = 2_000_000_000  # the largest published file has 0.3 GB; more is not ours to store


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try.

    Attributes:
        timeout_s: How long a server may say nothing.
        attempts: How often to go on after a connection broke.
        pause_s: Before the second attempt; it doubles as long as nothing more comes.
    """

    timeout_s: float = 30.0
    attempts: int = 5
    pause_s: float = 1.0

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or self.attempts < 1 or self.pause_s < 0:
            raise OptionError("The timeout and the number of attempts must be positive.")


DEFAULT_PATIENCE = Patience()


class _RetryError(Exception):
    """A connection broke in a way that another attempt may mend."""


class _UnreachableError(_RetryError):
    """There was no connection at all."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to anything else: eight hexadecimal digits are no signature."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = {"https"} if req.type == "https" else {"http", "https"}
        if urlsplit(newurl).scheme not in allowed:
            raise DownloadError(
                f"{req.full_url} redirects to {newurl}, which is not followed.",
                remedy="Name another place with --mirror URL.",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def transfer(url: str, part: Path, patience: Patience, count: CountCallback) -> int:
    """Append to a file what it lacks of the one at ``url``, until it is as long as the server says.

    Args:
        url: http or https.
        part: Exists; what it holds is taken for the beginning, and kept if this fails.
        patience: How long to try.
        count: Called with how far it is.

    Returns:
        The number of bytes that came.

    Raises:
        DownloadError: The server cannot be reached or does not give the file.
        OSError: ``part`` cannot be written.
    """
    before, pause_s = part.stat().st_size, patience.pause_s
    for attempt in range(1, patience.attempts + 1):
        had = part.stat().st_size
        try:
            _fetch(url, part, patience.timeout_s, count)
        except _RetryError as err:
            hopeless = isinstance(err, _UnreachableError) and attempt == 1
            if hopeless or attempt == patience.attempts:
                raise DownloadError(
                    f"{url} could not be fetched: {err}.",
                    details=[f"{part.stat().st_size:,} bytes are kept in {part}"]
                    if part.stat().st_size
                    else [],
                    remedy=f"Run the command again to go on, or fetch it by hand: {url}",
                ) from err
            _LOG.info("%s: %s; trying again in %.1f s", url, err, pause_s)
            time.sleep(pause_s)
            pause_s = patience.pause_s if part.stat().st_size > had else 2 * pause_s
        else:
            break
    return max(part.stat().st_size - before, 0)


def _fetch(url: str, part: Path, timeout_s: float, count: CountCallback) -> None:
    """One attempt, from where the last one ended."""
    had = part.stat().st_size
    headers = {"User-Agent": "riformer-deploy", "Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # http and https only
    try:
        opened = urllib.request.build_opener(_Redirects).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as err:
        err.close()
        _status(err.code, url, had)
        return
    except urllib.error.URLError as err:
        raise _UnreachableError(_reason(err.reason)) from err
    except (OSError, http.client.HTTPException) as err:
        raise _RetryError(_reason(err)) from err
    with opened as response:
        start, total = _extent(response, had, url)
        with part.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            _copy(response, file, start, total, count)


def _status(code: int, url: str, had: int) -> None:
    if code == 416 and had:  # what is there is as long as the file, or longer; its hash will tell
        return
    if code in {408, 425, 429} or code >= 500:
        raise _RetryError(f"the server says {code}")
    raise DownloadError(
        f"{url} cannot be fetched: the server says {code}.",
        remedy=f"Look whether it opens in a browser, or name another place with --mirror URL: {url}",
    )


def _extent(response: http.client.HTTPResponse, had: int, url: str) -> tuple[int, int]:
    """Where the response begins and how long the whole file is (0 if that is not said)."""
    length = response.headers.get("Content-Length", "")
    start, total = 0, int(length) if length.isdecimal() else 0
    if response.status == 206:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if given is None or int(given[1]) != had:
            raise DownloadError(
                f"{url} was asked for from byte {had:,} on; the server's answer begins elsewhere "
                f"({response.headers.get('Content-Range')!r}).",
                remedy="Remove the .part file, or name another place with --mirror URL.",
            )
        start, total = had, 0 if given[2] == "*" else int(given[2])
    if total > _LARGEST_BYTES:
        raise DownloadError(
            f"{url} is {total:,} bytes long; no published file is.", remedy="Name another --mirror URL."
        )
    return start, total


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], done: int, total: int, count: CountCallback
) -> None:
    count(done, total)
    while piece := _piece(response):
        file.write(piece)
        done += len(piece)
        if done > _LARGEST_BYTES:
            raise DownloadError("What the server sends does not end where any published file does.")
        count(done, total)
    if total and done < total:
        raise _RetryError(f"the connection ended after {done:,} of {total:,} bytes")


def _piece(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_PIECE_BYTES)
    except (OSError, http.client.HTTPException) as err:
        raise _RetryError(_reason(err)) from err


def _reason(cause: object) -> str:
    if isinstance(cause, TimeoutError):
        return "the server said nothing for too long"
    return str(cause).strip() or type(cause).__name__
