import dataclasses
import functools
import hashlib
import http.server
import subprocess
import sys
import threading
import types
import zipfile

import numpy as np
import pytest

import comet_rec.datasets
import comet_rec.reading
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.datasets import cache as dataset_cache
from comet_rec.datasets import catalog
from comet_rec.datasets.entries import Entry, Wheel
from comet_rec.errors import DataError

COLUMNS = {"user": "1", "item": "2", "rating": "3", "time": "4"}
RATINGS = "1\t10\t5\t100\n1\t20\t3\t200\n2\t10\t4\t150\n"
FILMS = "10|Toy Story (1995)|01-Jan-1995\n20|Misérables, Les (1995)|\n"
ATOMIC = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + RATINGS
ATOMIC_FILMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "10\tToy Story\t1995\tAnimation\n20\tMisérables, Les\t1995\tDrama\n267\tunknown\tunknown\tx\n"
)


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMET_REC_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset_cache, "RETRIES", 0)  # a retry waits for a second
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder whose files a web server on this machine gives out; its address and requests."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, form, *arguments):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield types.SimpleNamespace(folder=folder, address=address, asked=asked)
        server.shutdown()
        thread.join()


@pytest.fixture
def toy(served, cache, monkeypatch):
    """A data set of three ratings, and a second one of a headerless CSV."""
    archive = served.folder / "toy.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("toy/u.data", RATINGS)
        opened.writestr("toy/u.item", FILMS.encode("latin-1"))
        opened.writestr("toy/not-wanted", "x")
    shop = "A1,0001,5.0,100\nA1,0002,4.0,200\nA2,0001,1.0,300\n"
    (served.folder / "shop.csv").write_text(shop)
    wheel = Wheel(
        requirement="toy==1.0",
        members={
            "toy/data/toy.inter": digest(ATOMIC.encode()),
            "toy/data/toy.item": digest(ATOMIC_FILMS.encode()),
        },
        interactions_file="toy.inter",
        columns={"user": "user_id:token", "item": "item_id:token", "time": "timestamp:float"},
        titles_file="toy.item",
    )
    entry = Entry(
        name="toy",
        title="Toy ratings",
        url=served.address + "/toy.zip",
        digest=digest(archive.read_bytes()),
        members=("toy/u.data", "toy/u.item"),
        interactions_file="u.data",
        titles_file="u.item",
        licence="Free to play with. Full text: toy.example",
        citation="A. Toy, 2020.",
        users=2,
        items=2,
        interactions=3,
        columns=COLUMNS,
        wheel=wheel,
    )
    shop_entry = dataclasses.replace(
        entry,
        name="shop",
        url=served.address + "/shop.csv",
        digest=None,
        members=(),
        interactions_file="shop.csv",
        titles_file=None,
        wheel=None,
        min_user_interactions=2,
        users=1,
        items=2,
        interactions=2,
    )
    monkeypatch.setattr(catalog, "ENTRIES", (entry, shop_entry))
    return entry


@pytest.fixture
def read(monkeypatch):
    """A stand-in for `readers.read` that remembers what it was asked."""
    calls = []

    def fake(source, **options):
        calls.append((source, options))
        return Interactions(
            users=np.array([0, 0, 1], dtype=np.int32),
            items=np.array([0, 1, 0], dtype=np.int32),
            times=None,
            time_scope="none",
            user_ids=Ids("int", np.array([1, 2])),
            item_ids=Ids("int", np.array([10, 20])),
            notes=("read",),
        )

    module = types.ModuleType("comet_rec.reading.readers")
    module.read = fake
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(comet_rec.reading, "readers", module, raising=False)
    return calls


@pytest.fixture
def fake_pip(monkeypatch):
    """Pip as it would fetch the toy's wheel; the list of its calls."""
    calls = []

    def run(command, **options):
        calls.append(command)
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/toy-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("toy/__init__.py", "raise SystemExit")
            wheel.writestr("toy/data/toy.inter", ATOMIC)
            wheel.writestr("toy/data/toy.item", ATOMIC_FILMS)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(dataset_cache.subprocess, "run", run)
    return calls


class TestEntries:
    def test_every_entry_is_complete(self):
        known = catalog.entries()
        assert list(known) == ["ml-100k", "ml-1m", "amazon-movies", "amazon-cds"]
        for name, entry in known.items():
            assert entry.name == name
            assert entry.url.startswith("https://")
            assert "https://" in entry.licence
            assert entry.citation
            assert entry.digest is None or entry.digest.startswith(("md5:", "sha256:"))
            names = {member.rpartition("/")[2] for member in entry.members}
            assert not entry.members or {entry.interactions_file, entry.titles_file} <= names

    def test_published_counts(self):
        counts = {n: (e.users, e.items, e.interactions) for n, e in catalog.entries().items()}
        assert counts == {
            "ml-100k": (943, 1682, 100_000),
            "ml-1m": (6040, 3706, 1_000_209),
            "amazon-movies": (40_928, 51_509, 1_163_413),
            "amazon-cds": (26_876, 66_820, 770_188),
        }

    def test_names(self):
        assert catalog.is_name("ml-1m")
        assert not catalog.is_name("ml-1m.csv")
        with pytest.raises(DataError, match=r"unknown data set 'ml100k'; did you mean 'ml-100k'\?"):
            catalog.entry_of("ml100k")
        with pytest.raises(DataError, match="known: ml-100k, ml-1m, amazon-movies, amazon-cds"):
            catalog.entry_of("zzz")


class TestFetch:
    def test_the_licence_comes_first_and_nothing_is_fetched_twice(self, toy, cache, served):
        said = []
        assert catalog.fetch("toy", say=said.append) == cache / "toy"
        assert said == [
            "Toy ratings\n  Terms: Free to play with. Full text: toy.example\n  Cite: A. Toy, 2020."
        ]
        names = {path.name for path in (cache / "toy").iterdir()}
        assert names == {"u.data", "u.item", "digest.json", ".lock"}
        assert catalog.fetch("toy", say=said.append) == cache / "toy"
        assert len(said) == len(served.asked) == 1

    def test_stderr_by_default_and_nothing_when_quiet(self, toy, tmp_path, capsys):
        catalog.fetch("toy", folder=tmp_path / "one")
        shown = capsys.readouterr()
        assert "Free to play with" in shown.err
        assert shown.out == ""
        catalog.fetch("toy", folder=tmp_path / "two", quiet=True)
        assert capsys.readouterr().err == ""

    def test_progress_is_told(self, toy, served):
        seen = []
        catalog.fetch("toy", quiet=True, progress=lambda *numbers: seen.append(numbers))
        size = (served.folder / "toy.zip").stat().st_size
        assert seen[-1] == (size, size)

    def test_a_damaged_file_is_found_later(self, toy, cache):
        catalog.fetch("toy", quiet=True)
        (cache / "toy" / "u.data").write_text("1\t1\t1\t1\n")
        with pytest.raises(DataError, match=r"u\.data does not have the digest .* fetch again"):
            catalog.fetch("toy")

    def test_a_wrong_digest_is_no_reason_for_the_wheel(self, toy, served, cache, fake_pip):
        (served.folder / "toy.zip").write_bytes(b"something else")
        with pytest.raises(DataError, match="does not have the digest"):
            catalog.fetch("toy", quiet=True)
        assert [path.name for path in (cache / "toy").iterdir()] == [".lock"]
        assert fake_pip == []

    def test_the_wheel_stands_in_for_a_source_out_of_reach(self, toy, served, cache, fake_pip):
        (served.folder / "toy.zip").unlink()
        said = []
        home = catalog.fetch("toy", say=said.append)
        assert said[1].endswith("taking the same data from the wheel toy==1.0 through pip")
        assert "answers 404" in said[1]
        assert (home / "toy.inter").read_text() == ATOMIC
        assert {path.name for path in home.iterdir()} == {
            "toy.inter",
            "toy.item",
            "digest.json",
            ".lock",
        }
        assert dataset_cache.read_record(home)["source"] == "the wheel toy==1.0"
        catalog.fetch("toy")
        assert len(fake_pip) == 1

    def test_no_source_at_all(self, toy, served, cache, monkeypatch):
        (served.folder / "toy.zip").unlink()

        def run(command, **options):
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n")

        monkeypatch.setattr(dataset_cache.subprocess, "run", run)
        with pytest.raises(DataError) as caught:
            catalog.fetch("toy", quiet=True)
        assert str(caught.value) == (
            "pip cannot fetch toy==1.0: ERROR: no network; "
            f"try again, or put u.data into {cache / 'toy'} yourself"
        )

    def test_a_wheel_with_other_data_is_refused(self, toy, served, fake_pip, monkeypatch):
        (served.folder / "toy.zip").unlink()
        wheel = dataclasses.replace(toy.wheel, members={"toy/data/toy.inter": "sha256:00"})
        monkeypatch.setattr(catalog, "ENTRIES", (dataclasses.replace(toy, wheel=wheel),))
        with pytest.raises(DataError, match=r"toy==1\.0: toy/data/toy\.inter does not have"):
            catalog.fetch("toy", quiet=True)

    def test_an_archive_of_your_own_is_unpacked(self, toy, served, tmp_path):
        own = tmp_path / "own"
        own.mkdir()
        (own / "toy.zip").write_bytes((served.folder / "toy.zip").read_bytes())
        assert catalog.fetch("toy", folder=own) == own
        assert (own / "u.data").read_text() == RATINGS
        assert (own / "toy.zip").exists()
        assert served.asked == []

    def test_a_broken_archive_of_your_own(self, toy, tmp_path):
        (tmp_path / "toy.zip").write_bytes(b"PK broken")
        with pytest.raises(DataError, match=r"toy\.zip does not have the digest"):
            catalog.fetch("toy", folder=tmp_path)
        assert (tmp_path / "toy.zip").exists()


class TestLoad:
    def test_it_fetches_reads_and_says_where_from(self, toy, read, cache):
        log = catalog.load("toy", quiet=True)
        assert read == [(cache / "toy" / "u.data", {"min_user_interactions": 0, **COLUMNS})]
        assert log.notes == ("read", f"toy: from {toy.url}")

    @pytest.mark.parametrize("name", ["u.data", "u.data.gz", "toy/u.data", "toy.inter"])
    def test_files_of_your_own(self, toy, read, tmp_path, served, cache, name):
        own = tmp_path / "own"
        (own / name).parent.mkdir(parents=True)
        (own / name).write_text("")
        log = catalog.load("toy", folder=own)
        columns = toy.wheel.columns if name == "toy.inter" else COLUMNS
        assert read == [(own / name, {"min_user_interactions": 0, **columns})]
        assert log.notes[1].endswith("in a folder of your own")
        assert served.asked == []
        assert not cache.exists()

    def test_an_archive_of_your_own(self, toy, read, tmp_path, served):
        own = tmp_path / "own"
        own.mkdir()
        (own / "toy.zip").write_bytes((served.folder / "toy.zip").read_bytes())
        catalog.load("toy", folder=own)
        assert read[0][0] == own / "u.data"
        assert served.asked == []

    def test_an_empty_folder_falls_back_to_the_cache(self, toy, read, tmp_path, cache):
        own = tmp_path / "own"
        own.mkdir()
        catalog.load("toy", folder=own, quiet=True)
        assert read[0][0] == cache / "toy" / "u.data"
        assert list(own.iterdir()) == []

    def test_a_folder_that_is_none(self, toy, read, tmp_path):
        with pytest.raises(DataError, match="is not a folder: name the folder that holds toy's"):
            catalog.load("toy", folder=tmp_path / "typo")

    def test_options_go_to_the_reader_and_none_is_the_default(self, toy, read):
        catalog.load("shop", quiet=True, min_user_interactions=None, min_rating=None, threads=2)
        catalog.load("shop", min_user_interactions=5, user="2", item="1")
        assert read[0][1] == {"min_user_interactions": 2, "threads": 2, **COLUMNS}
        assert read[1][1] == {"min_user_interactions": 5, **COLUMNS, "user": "2", "item": "1"}

    def test_other_counts_than_published_are_noted(self, toy, read, monkeypatch):
        entry = dataclasses.replace(toy, users=3, interactions=1_000)
        monkeypatch.setattr(catalog, "ENTRIES", (entry,))
        log = catalog.load("toy", quiet=True)
        assert log.notes[-1] == "toy: 2 users, published 3; 3 interactions, published 1,000"
        assert len(catalog.load("toy", min_rating=4).notes) == 2
        assert len(catalog.load("toy", min_user_interactions=0).notes) == 3


class TestTitles:
    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("u.item", FILMS.encode("latin-1")),
            ("u.item", FILMS.replace("\n", "\r\n").encode()),
            ("toy.item", ATOMIC_FILMS.encode()),
            ("u.item", FILMS.replace("|", "::").encode("latin-1")),
        ],
    )
    def test_every_form(self, toy, tmp_path, file, content):
        (tmp_path / file).write_bytes(content)
        found = catalog.titles("toy", folder=tmp_path)
        assert found.pop(267, "unknown") == "unknown"
        assert found == {10: "Toy Story (1995)", 20: "Misérables, Les (1995)"}

    def test_from_the_cache_and_none(self, toy):
        assert catalog.titles("toy") == {}
        assert catalog.titles("shop") == {}
        catalog.fetch("toy", quiet=True)
        assert catalog.titles("toy")[20] == "Misérables, Les (1995)"

    def test_not_titles(self, toy, tmp_path):
        (tmp_path / "u.item").write_text("hello\n")
        with pytest.raises(DataError, match=r"u\.item is not a file of titles"):
            catalog.titles("toy", folder=tmp_path)
        (tmp_path / "u.item").write_text("")
        with pytest.raises(DataError, match=r"u\.item is not a file of titles"):
            catalog.titles("toy", folder=tmp_path)


class TestReal:
    def test_toy_sets_through_the_real_reader(self, toy, fake_pip, served, tmp_path):
        pytest.importorskip("comet_rec.reading.readers")
        log = catalog.load("toy", quiet=True)
        assert (log.n_users, log.n_items, len(log)) == (2, 2, 3)
        shop = catalog.load("shop", quiet=True)
        assert (shop.n_users, shop.n_items, len(shop)) == (1, 2, 2)
        assert shop.item_ids.external([0, 1]).tolist() == ["0001", "0002"]
        assert not any("published" in note for note in shop.notes + log.notes)
        (served.folder / "toy.zip").unlink()
        (tmp_path / "other").mkdir()
        catalog.fetch("toy", folder=tmp_path / "other", quiet=True)
        wheel = catalog.load("toy", folder=tmp_path / "other")
        assert wheel.fingerprint == log.fingerprint

    @pytest.mark.slow
    def test_ml_100k_from_its_wheel(self, cache, monkeypatch):
        pytest.importorskip("comet_rec.reading.readers")
        entry = dataclasses.replace(catalog.entry_of("ml-100k"), url="http://127.0.0.1:9/x.zip")
        monkeypatch.setattr(catalog, "ENTRIES", (entry,))
        try:
            catalog.fetch("ml-100k")
        except dataset_cache.SourceUnavailableError as error:
            pytest.skip(f"no package index within reach: {error}")
        log = catalog.load("ml-100k")
        assert (log.n_users, log.n_items, len(log)) == (943, 1682, 100_000)
        assert log.notes[-1] == "ml-100k: from the wheel recbole==1.2.1"
        assert log.time_scope == "global"
        named = catalog.titles("ml-100k")
        assert len(named) == 1682
        assert named[1] == "Toy Story (1995)"
