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

from riformer_deploy.checkpoints.transfer_watch import Watch, opener
from riformer_deploy.common.errors import DownloadError, OptionError
from riformer_deploy.common.foreign_data import reason_of
from riformer_deploy.common.progress import CountCallback

_LOG = logging.getLogger(__name__)
_PIECE_BYTES = 1 << 18
_LARGEST_BYTES = 2_000_000_000  # the largest published file has 0.3 GB; more is not ours to store
_MOST_DIGITS = 18


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try.

    Attributes:
        timeout_s: How long a server may say nothing.
        attempts: How often to go on after a connection broke.
        pause_s: Before the second attempt; it doubles as long as nothing more comes.
        least_bytes_per_s: The slowest that is borne, over twice ``timeout_s``.
        total_s: How long all attempts together may take.
    """

    timeout_s: float = 30.0
    attempts: int = 5
    pause_s: float = 1.0
    least_bytes_per_s: int = 1024
    total_s: float = 6 * 3600.0

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or self.attempts < 1 or self.pause_s < 0 or self.total_s <= 0:
            raise OptionError("The timeout and the number of attempts must be positive.")


DEFAULT_PATIENCE = Patience()


class _RetryError(Exception):
    """A connection broke in a way that another attempt may mend."""


class _UnreachableError(_RetryError):
    """There was no connection at all."""


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
    deadline = time.monotonic() + patience.total_s
    for attempt in range(1, patience.attempts + 1):
        had = part.stat().st_size
        try:
            _fetch(url, part, patience, deadline, count)
        except _RetryError as err:
            hopeless = isinstance(err, _UnreachableError) and attempt == 1
            late = time.monotonic() + pause_s >= deadline
            if hopeless or late or attempt == patience.attempts:
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


def _fetch(url: str, part: Path, patience: Patience, deadline: float, count: CountCallback) -> None:
    """One attempt, from where the last one ended."""
    window_s = 2 * patience.timeout_s
    least_bytes = int(patience.least_bytes_per_s * window_s)
    with Watch(window_s=window_s, least_bytes=least_bytes, deadline=deadline) as watch:
        try:
            _watched(url, part, patience, watch, count)
            if watch.reason is not None:  # a file of unknown length only seems to be whole
                raise _RetryError(watch.reason)
        except (DownloadError, _RetryError) as err:
            if watch.reason is not None:
                raise _RetryError(watch.reason) from err
            raise
        except OSError:
            raise  # of the file: those of the network are handled where they arise
        except Exception as err:  # of urllib and http.client for what a server sends, such as ValueError
            raise DownloadError(
                f"{url} cannot be fetched: {_reason(err)}.", remedy="Name another place with --mirror URL."
            ) from err


def _watched(url: str, part: Path, patience: Patience, watch: Watch, count: CountCallback) -> None:
    had = part.stat().st_size
    headers = {"User-Agent": "riformer-deploy", "Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # http and https only
    try:
        opened = opener(watch).open(request, timeout=patience.timeout_s)
    except urllib.error.HTTPError as err:
        err.close()
        _status(err.code, url, had)
        return
    except urllib.error.URLError as err:
        raise (_RetryError if watch.reason else _UnreachableError)(_reason(err.reason)) from err
    except (OSError, http.client.HTTPException) as err:
        raise _RetryError(_reason(err)) from err
    with opened as response:
        start, total = _extent(response, had, url)
        with part.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            _copy(response, file, start, total, watch, count)


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
    start, total = 0, _number(length) if re.fullmatch(r"[0-9]+", length) else 0
    if response.status == 206:
        given = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)", response.headers.get("Content-Range", ""))
        if given is None or _number(given[1]) != had:
            raise DownloadError(
                f"{url} was asked for from byte {had:,} on; the server's answer begins elsewhere "
                f"({response.headers.get('Content-Range', '')[:80]!r}).",
                remedy="Remove the .part file, or name another place with --mirror URL.",
            )
        start, total = had, 0 if given[2] == "*" else _number(given[2])
    if total > _LARGEST_BYTES:
        raise DownloadError(
            f"{url} is {total:,} bytes long; no published file is.", remedy="Name another --mirror URL."
        )
    return start, total


def _number(digits: str) -> int:
    """A number of the server's; one of absurdly many digits counts as larger than any file."""
    return int(digits) if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    done: int,
    total: int,
    watch: Watch,
    count: CountCallback,
) -> None:
    count(done, total)
    while piece := _piece(response):
        file.write(piece)
        done += len(piece)
        watch.moved += len(piece)
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
    return reason_of(cause) if isinstance(cause, BaseException) else str(cause).strip()[:200]
