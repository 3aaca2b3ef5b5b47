import contextlib
import gc
import hashlib
import http.server
import io
import json
import subprocess
import sys
import threading
import time
import types
import zipfile
from dataclasses import dataclass, field

import pytest

from comet_rec.datasets import cache
from comet_rec.datasets.cache import SourceUnavailableError
from comet_rec.datasets.entries import Entry
from comet_rec.errors import DataError

BODY = bytes(range(256)) * 2_000  # 512,000 bytes: several chunks


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def zip_of(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@dataclass
class Site:
    """A web server on this machine whose answers a test sets."""

    address: str = ""
    body: bytes = BODY
    length: bool = True
    status: int = 200
    cuts: list[int] = field(default_factory=list)  # bytes after which an answer breaks off
    delay: float = 0.0
    asked: list[str] = field(default_factory=list)

    def answer(self, request):
        self.asked.append(request.path)
        time.sleep(self.delay)
        if self.status != 200:
            request.send_error(self.status)
            return
        request.send_response(200)
        if self.length:
            request.send_header("Content-Length", str(len(self.body)))
        request.send_header("Content-Type", "application/octet-stream")
        request.end_headers()
        request.wfile.write(self.body[: self.cuts.pop(0)] if self.cuts else self.body)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time", types.SimpleNamespace(sleep=lambda seconds: None))
    made = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(ConnectionError):  # the other side gave up
                made.answer(self)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()
    gc.collect()  # a connection that was left open warns here, which fails its test


class TestDownload:
    def test_the_whole_file_arrives_with_its_progress(self, site, tmp_path, capsys):
        seen = []
        cache.download(
            site.address,
            tmp_path / "file",
            digest=sha256(BODY),
            progress=lambda done, total: seen.append((done, total)),
        )
        assert (tmp_path / "file").read_bytes() == BODY
        assert seen[-1] == (len(BODY), len(BODY))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        assert len(seen) > 5
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert capsys.readouterr() == ("", "")  # pooch's own lines are not for our user

    def test_md5_is_understood(self, site, tmp_path):
        md5 = hashlib.md5(BODY).hexdigest()
        cache.download(site.address, tmp_path / "file", digest=f"md5:{md5}")
        assert (tmp_path / "file").exists()

    @pytest.mark.parametrize("digest", [None, sha256(BODY)])
    def test_a_download_that_broke_off_is_repeated(self, site, tmp_path, digest):
        site.cuts = [200_000]
        seen = []
        cache.download(
            site.address, tmp_path / "file", digest=digest, progress=lambda *a: seen.append(a)
        )
        assert (tmp_path / "file").read_bytes() == BODY
        assert len(site.asked) == 2
        assert seen[-1] == (len(BODY), len(BODY))

    def test_a_source_that_breaks_off_again_and_again_leaves_nothing(self, site, tmp_path):
        site.cuts = [200_000] * 9
        with pytest.raises(SourceUnavailableError, match=r"cannot be reached: .*[Ii]ncomplete"):
            cache.download(site.address, tmp_path / "file")
        assert list(tmp_path.iterdir()) == []

    def test_an_answer_without_a_length(self, site, tmp_path):
        site.length = False
        seen = []
        cache.download(site.address, tmp_path / "file", progress=lambda *a: seen.append(a))
        assert (tmp_path / "file").read_bytes() == BODY
        done, total = seen[-1]
        assert done >= len(BODY)
        assert total is None

    def test_an_empty_file(self, site, tmp_path):
        site.body = b""
        cache.download(site.address, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b""

    def test_a_wrong_digest_removes_the_file(self, site, tmp_path):
        with pytest.raises(DataError, match="does not have the digest sha256:00; fetch again"):
            cache.download(site.address, tmp_path / "file", digest="sha256:00")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("digest", [None, sha256(BODY)])
    def test_a_web_page_is_not_a_file(self, site, tmp_path, digest):
        site.body = b"\n <!DOCTYPE html><html><body>Please log in to this network."
        with pytest.raises(SourceUnavailableError, match="a web page in place of the file"):
            cache.download(site.address, tmp_path / "file", digest=digest)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (503, "Service Unav")])
    def test_an_error_status(self, site, tmp_path, status, reason):
        site.status = status
        with pytest.raises(SourceUnavailableError, match=f"answers {status} {reason}"):
            cache.download(site.address, tmp_path / "file")

    def test_a_server_that_is_not_there(self, site, tmp_path):
        with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as gone:
            address = f"http://127.0.0.1:{gone.server_port}"
        with pytest.raises(SourceUnavailableError, match=r"cannot be reached: .*refused$"):
            cache.download(address, tmp_path / "file")

    def test_a_silent_server_is_given_up(self, site, tmp_path, monkeypatch):
        monkeypatch.setattr(cache, "SECONDS", 0.1)
        site.delay = 0.5
        with pytest.raises(SourceUnavailableError, match=r"timed out|timeout"):
            cache.download(site.address, tmp_path / "file")

    def test_an_endless_file_is_refused(self, site, tmp_path, monkeypatch):
        monkeypatch.setattr(cache, "MAX_BYTES", 100_000)
        with pytest.raises(DataError, match="more than 100000 bytes"):
            cache.download(site.address, tmp_path / "file")
        assert list(tmp_path.iterdir()) == []
        assert len(site.asked) == 1

    def test_pooch_is_imported_for_a_download_alone(self):
        told = "import sys, comet_rec.datasets.catalog as c; c.entries(); c.titles('ml-1m')"
        code = f"{told}; sys.exit('pooch' in sys.modules or 'requests' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)


class TestUnpack:
    def test_only_the_named_members_come_out(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(zip_of({"in/one": "1", "in/two": "2", "three": "3"}))
        out = tmp_path / "out"
        out.mkdir()
        cache.unpack(tmp_path / "a.zip", ["in/one", "three"], out)
        assert {path.name: path.read_text() for path in out.iterdir()} == {"one": "1", "three": "3"}

    @pytest.mark.parametrize(
        "evil", ["../evil", "/etc/evil", "in/../../evil", "..\\evil", "C:\\evil"]
    )
    def test_an_archive_cannot_write_outside_the_folder(self, tmp_path, evil):
        (tmp_path / "a.zip").write_bytes(zip_of({"one": "1", evil: "x"}))
        out = tmp_path / "out"
        out.mkdir()
        cache.unpack(tmp_path / "a.zip", ["one"], out)
        assert [path.name for path in out.iterdir()] == ["one"]
        assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "out"}

    def test_a_bomb_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cache, "MAX_BYTES", 1_000)
        (tmp_path / "a.zip").write_bytes(zip_of({"one": b"0" * 1_001}))
        with pytest.raises(DataError, match="one unpacks to 1001 bytes; refused"):
            cache.unpack(tmp_path / "a.zip", ["one"], tmp_path)
        assert not (tmp_path / "one").exists()

    def test_a_member_that_is_missing(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(zip_of({"one": "1"}))
        with pytest.raises(DataError, match="no item named 'two'"):
            cache.unpack(tmp_path / "a.zip", ["two"], tmp_path)

    def test_a_damaged_member_is_refused(self, tmp_path):
        whole = bytearray(zip_of({"one": bytes(range(256)) * 40}))
        whole[60] ^= 0xFF
        (tmp_path / "a.zip").write_bytes(whole)
        with pytest.raises(DataError, match="cannot be unpacked"):
            cache.unpack(tmp_path / "a.zip", ["one"], tmp_path)

    def test_not_a_zip(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(b"hello")
        with pytest.raises(DataError, match="cannot be unpacked: File is not a zip file"):
            cache.unpack(tmp_path / "a.zip", ["one"], tmp_path)


class TestWheel:
    def test_pip_is_asked_for_a_wheel_only(self, tmp_path, monkeypatch):
        asked = []

        def run(command, **options):
            asked.append((command, options))
            (tmp_path / "thing-1.0-py3-none-any.whl").write_bytes(b"")
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(cache.subprocess, "run", run)
        wheel = cache.download_wheel("thing==1.0", tmp_path)
        assert wheel.name == "thing-1.0-py3-none-any.whl"
        [(command, options)] = asked
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert {"--no-deps", "--only-binary=:all:", "thing==1.0"} <= set(command)
        assert not options.get("shell")

    def test_a_refusal_is_one_line(self, tmp_path, monkeypatch):
        def run(command, **options):
            return subprocess.CompletedProcess(command, 1, "", "WARNING: a\nERROR: no index\n")

        monkeypatch.setattr(cache.subprocess, "run", run)
        with pytest.raises(SourceUnavailableError) as caught:
            cache.download_wheel("thing==1.0", tmp_path)
        assert str(caught.value) == "pip cannot fetch thing==1.0: ERROR: no index"

    def test_a_pip_that_hangs(self, tmp_path, monkeypatch):
        def run(command, timeout, **options):
            raise subprocess.TimeoutExpired("pip", timeout)

        monkeypatch.setattr(cache.subprocess, "run", run)
        with pytest.raises(SourceUnavailableError, match="timed out"):
            cache.download_wheel("thing==1.0", tmp_path)


def entry_at(site, **changes):
    settings = {
        "name": "toy",
        "title": "Toy",
        "url": site.address + "/log.csv",
        "interactions_file": "log.csv",
        "licence": "Free.",
        "citation": "Nobody.",
    }
    return Entry(**{**settings, **changes})


class TestStore:
    def fill(self, entry, home):
        said = []
        with_progress = []

        bar = contextlib.nullcontext(lambda *numbers: with_progress.append(numbers))
        cache.fill(entry, home, said.append, bar)
        return said, with_progress

    def test_the_digest_of_the_first_download_is_recorded_and_held(self, site, tmp_path):
        entry = entry_at(site)
        self.fill(entry, tmp_path)
        record = json.loads((tmp_path / "digest.json").read_text())
        assert record == {"source": entry.url, "files": {"log.csv": sha256(BODY)}}
        (tmp_path / "log.csv").unlink()
        site.body = b"changed"
        with pytest.raises(DataError, match="not the file that was fetched here before"):
            self.fill(entry, tmp_path)
        assert not (tmp_path / "log.csv").exists()
        (tmp_path / "digest.json").unlink()
        self.fill(entry, tmp_path)
        assert (tmp_path / "log.csv").read_bytes() == b"changed"

    def test_verify_finds_a_changed_file(self, site, tmp_path):
        self.fill(entry_at(site), tmp_path)
        cache.verify(tmp_path / "log.csv")
        (tmp_path / "log.csv").write_bytes(b"changed")
        with pytest.raises(DataError, match="remove it and fetch again"):
            cache.verify(tmp_path / "log.csv")

    def test_a_damaged_record(self, tmp_path):
        (tmp_path / "digest.json").write_text("[]")
        with pytest.raises(DataError, match=r"digest\.json is damaged"):
            cache.read_record(tmp_path)

    def test_two_at_once_fetch_once(self, site, tmp_path):
        site.delay = 0.3
        said = []
        entry = entry_at(site, digest=sha256(BODY))
        threads = [
            threading.Thread(target=lambda: said.extend(self.fill(entry, tmp_path / "home")[0]))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(site.asked) == 1
        assert (tmp_path / "home" / "log.csv").read_bytes() == BODY
        assert sum("waiting for it" in line for line in said) == 2

    def test_two_at_once_without_locks_do_not_corrupt(self, site, tmp_path, monkeypatch):
        def no_locks(*arguments):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(cache.fcntl, "flock", no_locks)
        site.delay = 0.1
        entry = entry_at(site, digest=sha256(BODY))
        threads = [threading.Thread(target=self.fill, args=(entry, tmp_path)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (tmp_path / "log.csv").read_bytes() == BODY
        assert {path.name for path in tmp_path.iterdir()} == {"log.csv", "digest.json", ".lock"}

    def test_what_a_killed_fetch_left_is_removed(self, site, tmp_path):
        (tmp_path / ".fetching-left").mkdir()
        (tmp_path / ".fetching-left" / "log.csv").write_bytes(b"half")
        site.cuts = [300_000] * 9
        with pytest.raises(SourceUnavailableError, match=r"or put log\.csv into .* yourself"):
            self.fill(entry_at(site), tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {".lock"}
        site.cuts = []
        self.fill(entry_at(site), tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"log.csv", "digest.json", ".lock"}

    def test_a_folder_that_cannot_be_written(self, site, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match=r"cannot be used: .*COMET_REC_DATA"):
            self.fill(entry_at(site), tmp_path / "file" / "home")

    def test_the_cache_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("COMET_REC_DATA", str(tmp_path))
        assert cache.cache_folder() == tmp_path
        monkeypatch.setenv("COMET_REC_DATA", "")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
        assert cache.cache_folder() == tmp_path / "x" / "comet-rec"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache.cache_folder() == tmp_path / ".cache" / "comet-rec"

    def test_a_bar_is_drawn_on_a_terminal_only(self, monkeypatch, capsys):
        with cache.terminal_bar("toy") as progress:
            assert progress is None
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        with cache.terminal_bar("toy") as progress:
            assert progress is not None
            progress(10, 100)
            progress(100, None)
        assert capsys.readouterr().out == ""
