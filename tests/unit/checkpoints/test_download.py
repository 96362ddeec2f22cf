"""Downloads against a real server on loopback that misbehaves in every way a server or a proxy does."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from riformer_deploy.checkpoints import download
from riformer_deploy.checkpoints.download import (
    PUBLISHED_AT,
    DownloadOptions,
    download_checkpoint,
    named_checkpoint,
)
from riformer_deploy.checkpoints.resumable_transfer import Patience
from riformer_deploy.checkpoints.transfer_watch import Redirects
from riformer_deploy.common.errors import DownloadError, OptionError
from riformer_deploy.model.variants import VARIANTS, Variant

CONTENT = bytes(range(256)) * 3000  # 768,000 bytes
S12 = VARIANTS["riformer-s12_in1k"]
QUICK = Patience(timeout_s=0.5, attempts=3, pause_s=0.01)


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` at every path; ``misdeed`` may answer instead, and says whether it did."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.misdeed: Callable[[Handler, int], bool] = lambda _handler, _number: False
        self.asked: list[tuple[str, str | None]] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:  # silence
        pass

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        if self.server.misdeed(self, len(self.server.asked)):
            return
        start = int(self.headers["Range"][6:-1]) if self.server.ranges and self.headers["Range"] else 0
        whole = self.server.content
        if start >= len(whole):
            self.send(416)
        elif start:
            extent = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
            self.send(206, whole[start:], Content_Range=extent)
        else:
            self.send(200, whole)

    def cut_after(self, sent: int, claimed: int = len(CONTENT)) -> bool:
        self.send(200, CONTENT[:sent], Content_Length=str(claimed))
        return True


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.release.set()
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture
def variant(monkeypatch: pytest.MonkeyPatch) -> Variant:
    """S12, as if ``CONTENT`` were its published file."""
    prefix = hashlib.sha256(CONTENT).hexdigest()[:8]
    found = dataclasses.replace(S12, file_name=f"riformer-s12_test-{prefix}.pth")
    monkeypatch.setitem(VARIANTS, S12.name, found)
    return found


@pytest.fixture
def options(server: Server, tmp_path: Path) -> DownloadOptions:
    return DownloadOptions(folder=str(tmp_path / "files"), mirror=server.url + "/mirror/", patience=QUICK)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=str)
def test_the_published_url_is_the_metafiles(variant: Variant, tmp_path: Path) -> None:
    url = DownloadOptions(folder=tmp_path).url_of(variant)
    assert url == f"https://download.openmmlab.com/mmclassification/v1/riformer/{variant.file_name}"
    assert url.startswith(PUBLISHED_AT)


def test_the_file_arrives_whole_and_is_counted(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    counts: list[tuple[int, int]] = []
    report = download_checkpoint(variant, options, lambda *args: counts.append(args))
    assert Path(report.path).read_bytes() == CONTENT
    assert report.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert report.fetched_bytes == report.size_bytes == len(CONTENT)
    assert (counts[0], counts[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))
    assert server.asked == [(f"/mirror/{variant.file_name}", None)]
    assert names(Path(options.folder)) == [variant.file_name]


def test_a_file_that_is_there_is_not_fetched_again(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    download_checkpoint(variant, options)
    assert download_checkpoint(variant, options).fetched_bytes == 0
    assert len(server.asked) == 1


def test_a_damaged_file_that_is_there_is_replaced(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    Path(options.folder).mkdir()
    (Path(options.folder) / variant.file_name).write_bytes(CONTENT[:-1])
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_truncated_answer_is_gone_on_with(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    server.misdeed = lambda handler, number: number == 1 and handler.cut_after(100_000)
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-"]


def test_an_interruption_carries_what_is_kept(variant: Variant, options: DownloadOptions) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        download_checkpoint(variant, options, interrupt)
    part = Path(options.folder) / f"{variant.file_name}.part"
    assert caught.value.__notes__ == [f"{part.stat().st_size:,} bytes are kept in {part}"]
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT


def test_a_server_that_stalls_is_given_up_and_asked_again(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    def stall(handler: Handler, number: int) -> bool:
        if number == 1:
            handler.cut_after(50_000)
            server.release.wait(10)
        return number == 1

    server.misdeed = stall
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT
    assert server.asked[1][1] == "bytes=50000-"


def test_a_server_that_only_stalls_is_an_error_that_keeps_what_came(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    def stall(handler: Handler, number: int) -> bool:
        if number == 1:
            handler.cut_after(50_000)
        server.release.wait(10)
        return True

    server.misdeed = stall
    patience = Patience(timeout_s=0.2, attempts=2, pause_s=0)
    with pytest.raises(DownloadError, match="said nothing for too long") as caught:
        download_checkpoint(variant, dataclasses.replace(options, patience=patience))
    assert "50,000 bytes are kept" in caught.value.details[0]
    assert caught.value.exit_code == 62
    assert names(Path(options.folder)) == [f"{variant.file_name}.part"]
    server.misdeed = lambda _handler, _number: False
    report = download_checkpoint(variant, options)
    assert report.fetched_bytes == len(CONTENT) - 50_000
    assert names(Path(options.folder)) == [variant.file_name]


def test_a_server_without_ranges_sends_it_all_again(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    server.ranges = False
    server.misdeed = lambda handler, number: number == 1 and handler.cut_after(100_000)
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT


@pytest.mark.parametrize("claimed", [len(CONTENT) + 5, len(CONTENT) - 5, 0])
def test_a_server_that_lies_about_the_length_does_no_harm(
    claimed: int, server: Server, variant: Variant, options: DownloadOptions
) -> None:
    def lie(handler: Handler, number: int) -> bool:
        return number == 1 and handler.cut_after(len(CONTENT), claimed)

    server.misdeed = lie
    if claimed > len(CONTENT):  # the rest never comes; asked for it, the server says there is none
        assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT
    else:
        with pytest.raises(DownloadError, match="should begin with"):
            download_checkpoint(variant, options)
        assert names(Path(options.folder)) == []


def test_an_answer_of_unknown_length_is_compared_by_its_hash(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    def unsaid(handler: Handler, _number: int) -> bool:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)
        return True

    server.misdeed = unsaid
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT


def test_wrong_content_is_refused_and_removed(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DownloadError, match="is not riformer-s12_test") as caught:
        download_checkpoint(variant, options)
    assert hashlib.sha256(server.content).hexdigest() in caught.value.message
    assert variant.sha256_prefix in caught.value.message
    assert names(Path(options.folder)) == []


def test_a_sign_in_page_is_called_a_web_page(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    server.content = b"\n<!DOCTYPE html><title>Sign in</title>"
    with pytest.raises(DownloadError, match="a web page"):
        download_checkpoint(variant, options)


def test_a_kept_part_of_something_else_is_begun_anew(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    Path(options.folder).mkdir()
    (Path(options.folder) / f"{variant.file_name}.part").write_bytes(b"?" * 1000)
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["bytes=1000-", None]


def test_a_kept_part_that_is_whole_is_taken(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    Path(options.folder).mkdir()
    (Path(options.folder) / f"{variant.file_name}.part").write_bytes(CONTENT)
    assert download_checkpoint(variant, options).fetched_bytes == 0
    assert names(Path(options.folder)) == [variant.file_name]
    assert [asked for _, asked in server.asked] == [f"bytes={len(CONTENT)}-"]


def test_a_range_that_begins_elsewhere_is_refused(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    Path(options.folder).mkdir()
    (Path(options.folder) / f"{variant.file_name}.part").write_bytes(CONTENT[:1000])

    def elsewhere(handler: Handler, _number: int) -> bool:
        handler.send(206, CONTENT[500:], Content_Range=f"bytes 500-{len(CONTENT) - 1}/{len(CONTENT)}")
        return True

    server.misdeed = elsewhere
    with pytest.raises(DownloadError, match="begins elsewhere"):
        download_checkpoint(variant, options)


def test_redirects_are_followed(server: Server, variant: Variant, options: DownloadOptions) -> None:
    def away(handler: Handler, number: int) -> bool:
        if number == 1:
            handler.send(302, Location=f"{server.url}/elsewhere")
        return number == 1

    server.misdeed = away
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == [f"/mirror/{variant.file_name}", "/elsewhere"]


def test_a_circle_of_redirects_ends(server: Server, variant: Variant, options: DownloadOptions) -> None:
    def circle(handler: Handler, _number: int) -> bool:
        handler.send(302, Location=f"{server.url}{handler.path}")
        return True

    server.misdeed = circle
    with pytest.raises(DownloadError, match="302"):
        download_checkpoint(variant, options)


@pytest.mark.parametrize(
    ("source", "target", "followed"),
    [
        ("https://a.example/x", "https://b.example/x", True),
        ("https://a.example/x", "http://b.example/x", False),
        ("http://a.example/x", "https://b.example/x", True),
        ("http://a.example/x", "ftp://b.example/x", False),
    ],
)
def test_a_redirect_never_leaves_https_or_the_web(source: str, target: str, *, followed: bool) -> None:
    import http.client  # noqa: PLC0415  # beside http.server above
    import io  # noqa: PLC0415  # used here alone

    request = urllib.request.Request(source)  # noqa: S310  # never opened
    arguments = (request, io.BytesIO(), 302, "Found", http.client.HTTPMessage(), target)
    if followed:
        onward = Redirects().redirect_request(*arguments)
        assert onward is not None
        assert onward.full_url == target
    else:
        with pytest.raises(DownloadError, match="not followed"):
            Redirects().redirect_request(*arguments)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_said_at_once_with_the_url(
    status: int, server: Server, variant: Variant, options: DownloadOptions
) -> None:
    def refuse(handler: Handler, _number: int) -> bool:
        handler.send(status)
        return True

    server.misdeed = refuse
    with pytest.raises(DownloadError, match=f"the server says {status}") as caught:
        download_checkpoint(variant, options)
    assert options.url_of(variant) in caught.value.remedy
    assert len(server.asked) == 1
    assert names(Path(options.folder)) == []


@pytest.mark.parametrize("status", [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS])
def test_a_busy_server_is_asked_again(
    status: int, server: Server, variant: Variant, options: DownloadOptions
) -> None:
    def busy(handler: Handler, number: int) -> bool:
        if number < 3:
            handler.send(status)
        return number < 3

    server.misdeed = busy
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT


def test_no_network_is_one_sentence_with_the_url_to_fetch_by_hand(variant: Variant, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}"
        options = DownloadOptions(folder=tmp_path / "files", mirror=mirror)  # with its default pauses
        with pytest.raises(DownloadError) as caught:
            download_checkpoint(variant, options)
    assert len(str(caught.value).splitlines()) == 2
    assert f"fetch it by hand: {mirror}/{variant.file_name}" in caught.value.remedy
    assert names(Path(options.folder)) == []


def test_a_proxy_is_honoured(
    server: Server, variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    options = DownloadOptions(folder=tmp_path / "files", mirror="http://files.invalid/x", patience=QUICK)
    download_checkpoint(variant, options)
    assert server.asked == [(f"http://files.invalid/x/{variant.file_name}", None)]


def test_a_second_process_at_the_same_file_is_refused(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    inner: list[str] = []

    def meanwhile(_handler: Handler, _number: int) -> bool:
        with pytest.raises(DownloadError, match="Another process") as caught:
            download_checkpoint(variant, options)
        inner.append(caught.value.message)
        return False

    server.misdeed = meanwhile
    assert Path(download_checkpoint(variant, options).path).read_bytes() == CONTENT
    assert len(inner) == 1


def test_a_folder_that_cannot_be_written_is_an_option_error(
    variant: Variant, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OptionError, match="cannot be written"):
        download_checkpoint(variant, DownloadOptions(folder=tmp_path / "file", mirror=server.url))


@pytest.mark.parametrize("mirror", ["ftp://x/y", "file:///etc", "/somewhere", "x"])
def test_a_mirror_is_on_the_web(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="http or https"):
        DownloadOptions(folder=tmp_path, mirror=mirror)


def test_a_name_is_fetched_and_a_path_is_itself(
    server: Server,
    variant: Variant,
    options: DownloadOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert named_checkpoint(tmp_path / "my.pth", options) == tmp_path / "my.pth"
    assert server.asked == []
    found = named_checkpoint(Path(S12.name), options)
    assert found == Path(options.folder) / variant.file_name
    monkeypatch.chdir(tmp_path)
    (tmp_path / S12.name).write_text("a file of that name goes first")
    assert named_checkpoint(Path(S12.name), options) == Path(S12.name)


def test_a_url_is_fetched_under_its_own_name_and_never_taken_for_a_file_that_is_there(
    server: Server, options: DownloadOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_SCHEMES", {"http"})
    url = f"{server.url}/some/where/my%20model.pth?download=true"
    folder = Path(options.folder)
    folder.mkdir()
    (folder / "my model.pth.part").write_bytes(b"of another version")
    path = named_checkpoint(url, options)
    assert (path.name, path.read_bytes()) == ("my model.pth", CONTENT)
    with pytest.raises(OptionError, match="is there already, and nothing tells"):
        named_checkpoint(url, options)
    assert len(server.asked) == 1


def test_a_hash_in_the_name_of_a_url_is_held_to(
    server: Server, options: DownloadOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_SCHEMES", {"http"})
    good = f"{server.url}/model-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
    assert named_checkpoint(good, options) == named_checkpoint(good, options)
    assert len(server.asked) == 1
    with pytest.raises(DownloadError, match="should begin with 00000000"):
        named_checkpoint(f"{server.url}/model-00000000.pth", options)


@pytest.mark.parametrize(
    "url", ["http://example.org/model.pth", "ftp://example.org/m.pth", "https://example.org/", "s3://b/m.pth"]
)
def test_other_urls_than_https_of_a_file_are_refused(url: str, options: DownloadOptions) -> None:
    with pytest.raises(OptionError, match="https address of a file"):
        named_checkpoint(url, options)


def _endless(write: Callable[[Handler], None], *, pause_s: float) -> Callable[[Handler, int], bool]:
    """A misdeed that goes on until the client hangs up, or the test ends."""

    def misdeed(handler: Handler, _number: int) -> bool:
        with contextlib.suppress(OSError):
            while not handler.server.release.wait(pause_s):
                write(handler)
                handler.wfile.flush()
        return True

    return misdeed


def _trickle(handler: Handler) -> None:
    handler.wfile.write(b"x")


def _continue(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _trickled_body(handler: Handler, number: int) -> bool:
    handler.send(200, b"", Content_Length=str(len(CONTENT)))
    return _endless(_trickle, pause_s=0.02)(handler, number)


@pytest.mark.parametrize(
    "misdeed",
    [_trickled_body, _endless(_continue, pause_s=0.0), _endless(_trickle, pause_s=0.02)],
    ids=["a body of some bytes a second", "interim answers without end", "a status line without end"],
)
def test_a_server_that_says_little_for_ever_is_given_up(
    server: Server, variant: Variant, options: DownloadOptions, misdeed: Callable[[Handler, int], bool]
) -> None:
    server.misdeed = misdeed
    quick = dataclasses.replace(options, patience=Patience(timeout_s=0.15, attempts=2, pause_s=0.0))
    start = time.monotonic()
    with pytest.raises(DownloadError, match="could not be fetched"):
        download_checkpoint(variant, quick)
    assert time.monotonic() - start < 5
    assert len(server.asked) == 2


def test_all_attempts_together_have_a_limit(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    server.misdeed = _trickled_body
    patience = Patience(timeout_s=60, attempts=99, pause_s=0.0, total_s=0.3)
    with pytest.raises(DownloadError, match="longer than is waited for"):
        download_checkpoint(variant, dataclasses.replace(options, patience=patience))
    assert len(server.asked) == 1


def test_the_body_of_a_redirect_is_not_read(
    server: Server, variant: Variant, options: DownloadOptions
) -> None:
    def misdeed(handler: Handler, number: int) -> bool:
        if number > 1:
            return False
        handler.send(302, b"", Location="/elsewhere", Content_Length="999999999")
        return True  # and the body never comes

    server.misdeed = misdeed
    assert download_checkpoint(variant, options).size_bytes == len(CONTENT)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (302, {"Location": "http://[::1/x"}),
        (302, {"Location": f"http://{'a' * 70}.example/x"}),
        (302, {"Location": "http://example.org:99999999/x"}),
        (302, {"Location": "http://a b/x"}),
        (200, {"Content_Length": "9" * 5000}),
        (206, {"Content_Range": f"bytes {'9' * 5000}-{'9' * 5000}/{'9' * 5000}"}),
    ],
)
def test_what_no_server_may_say_is_an_error_of_the_download(
    server: Server, variant: Variant, options: DownloadOptions, status: int, headers: dict[str, str]
) -> None:
    def misdeed(handler: Handler, _number: int) -> bool:
        handler.send(status, b"", **headers)
        return True

    server.misdeed = misdeed
    with pytest.raises(DownloadError):
        download_checkpoint(variant, options)


def test_nothing_is_written_through_a_part_that_is_a_link(
    variant: Variant, options: DownloadOptions, tmp_path: Path
) -> None:
    other, folder = tmp_path / "other", tmp_path / "files"
    other.write_text("mine")
    folder.mkdir()
    part = folder / f"{variant.file_name}.part"
    makers: list[Callable[[], object]] = [
        lambda: part.symlink_to(other),
        lambda: part.hardlink_to(other),
        lambda: os.mkfifo(part),
    ]
    for make in makers:
        make()
        with pytest.raises(OptionError, match="no plain file"):
            download_checkpoint(variant, options)
        part.unlink()
    assert other.read_text() == "mine"


@pytest.mark.parametrize("url", ["https://[x/a.pth", "https://h/%00.pth", "https://h/" + "a" * 300])
def test_names_that_no_file_can_have_are_refused(url: str, options: DownloadOptions) -> None:
    with pytest.raises(OptionError, match="cannot be fetched"):
        named_checkpoint(url, options)
