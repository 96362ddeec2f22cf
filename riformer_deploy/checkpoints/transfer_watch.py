"""Ends a connection from outside where a server says little for ever, and opens connections that can be ended."""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.request
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

from riformer_deploy.common.errors import DownloadError


class Watch:
    """Looks from a thread of its own whether bytes of the file come; no read can outlast it.

    The time limit of a socket begins anew with every byte, so that a header, an endless series of interim
    answers or a trailer of one byte a second pass it for ever.

    Args:
        window_s: How often it looks.
        least_bytes: How many bytes of the file must have come in a window.
        deadline: When all must have come, in seconds of :func:`time.monotonic`.

    Attributes:
        moved: How many bytes of the file came so far; set by who reads them.
        reason: Why it ended the connection; None where it did not.
    """

    def __init__(self, *, window_s: float, least_bytes: int, deadline: float) -> None:
        self.moved = 0
        self.reason: str | None = None
        self._window_s, self._least_bytes, self._deadline = window_s, least_bytes, deadline
        self._sockets: list[socket.socket] = []
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="download watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def add(self, connected: socket.socket) -> None:
        """Watch a connection."""
        with self._lock:
            self._sockets.append(connected)
        if self.reason is not None:
            self._end(self.reason)

    def _look(self) -> None:
        before = 0
        while not self._over.wait(min(self._window_s, max(self._deadline - time.monotonic(), 0.01))):
            if time.monotonic() >= self._deadline:
                return self._end("it took longer than is waited for in all")
            if self.moved - before < self._least_bytes:
                return self._end(f"fewer than {self._least_bytes:,} bytes came in {self._window_s:g} s")
            before = self.moved
        return None

    def _end(self, reason: str) -> None:
        self.reason = reason
        with self._lock:
            for connected in self._sockets:
                with contextlib.suppress(OSError):  # of a connection that ended by itself
                    # of the plain socket, since TLS would first say goodbye to a server that does not listen
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _Plain(http.client.HTTPConnection):
    def __init__(self, watch: Watch, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._watch = watch

    def connect(self) -> None:
        super().connect()
        self._watch.add(self.sock)


class _Secure(http.client.HTTPSConnection):
    def __init__(self, watch: Watch, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._watch = watch

    def connect(self) -> None:
        super().connect()
        self._watch.add(self.sock)


class _PlainHandler(urllib.request.HTTPHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        opened: Any = functools.partial(_Plain, self._watch)
        return self.do_open(opened, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        opened: Any = functools.partial(_Secure, self._watch)
        return self.do_open(opened, req, context=ssl.create_default_context())


class _Unread(io.BytesIO):
    """In place of the body of a redirect, which urllib reads to its end before it follows."""

    def __init__(self, body: IO[bytes]) -> None:
        super().__init__()
        self._body = body

    def close(self) -> None:
        self._body.close()
        super().close()


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to anything else: eight hexadecimal digits are no signature."""

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
    ) -> Any:
        """Follow without reading what the redirect itself says."""
        return super().http_error_302(req, _Unread(fp), code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request that follows; raises DownloadError where none may."""
        allowed = {"https"} if req.type == "https" else {"http", "https"}
        if urlsplit(newurl).scheme not in allowed:
            raise DownloadError(
                f"{req.full_url} redirects to {newurl}, which is not followed.",
                remedy="Name another place with --mirror URL.",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener(watch: Watch) -> urllib.request.OpenerDirector:
    """What opens URLs: with proxies from the environment, watched connections and bounded redirects."""
    return urllib.request.build_opener(Redirects, _PlainHandler(watch), _SecureHandler(watch))
