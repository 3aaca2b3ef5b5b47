"""Files of records: what they keep, what damage does, and records of earlier versions."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from comet_rec.artefact.folder import write_folder
from comet_rec.errors import ArtefactError
from comet_rec.experiments import records
from comet_rec.experiments.records import file_of, find, keep, keys, merge, rewrite

VALUES = {"log": "small", "sampled": {"HR@10": 0.1234567890123456}}
ARRAYS = {
    "better": np.array([0, 3, 200], np.uint8),
    "tied": np.zeros(3, np.uint8),
    "full_better": np.array([1, 70_000], np.uint32),
    "full_tied": np.zeros(2, np.uint8),
    "kernels/width 8, filter 1": np.ones((2, 8), np.float16),
}


def keep_some(folder, *names):
    for name in names:
        keep(folder, "small", name, {**VALUES, "label": name}, ARRAYS)


def test_a_record_comes_back_as_it_was_kept(tmp_path):
    keep_some(tmp_path, "small-mf-paper-0-a", "small-mf-paper-0-b")
    record = find(tmp_path, "small", "small-mf-paper-0-b")
    assert record.values == {**VALUES, "label": "small-mf-paper-0-b"}
    assert record.ranks["better"].tolist() == [0, 3, 200]
    assert record.ranks["better"].dtype == np.int64
    assert list(record.kernels) == ["width 8, filter 1"]
    assert record.kernels["width 8, filter 1"].dtype == np.float16
    assert record.full_ranks(3) is None  # a sample of the users
    assert record.full_ranks(2).better.tolist() == [1, 70_000]
    assert record.user_values("HR@10").tolist() == [1.0, 1.0, 0.0]
    assert find(tmp_path, "small", "small-mf-paper-0") is None
    assert find(tmp_path, "other", "small-mf-paper-0-b") is None


def test_one_file_holds_all_records_of_a_log_and_equal_records_give_equal_bytes(tmp_path):
    keep_some(tmp_path / "one", "a", "b")
    keep_some(tmp_path / "two", "b", "a", "a")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["small.zip"]
    one, two = (file_of(tmp_path / name, "small") for name in ("one", "two"))
    assert keys(one) == ["a", "b"]
    assert one.read_bytes() == two.read_bytes()


def test_a_record_replaces_one_of_the_same_key(tmp_path):
    keep_some(tmp_path, "a", "b")
    keep(tmp_path, "small", "a", {"log": "small"}, {"better": np.array([7])})
    assert find(tmp_path, "small", "a").values == {"log": "small"}
    assert list(find(tmp_path, "small", "a").ranks) == ["better"]
    assert find(tmp_path, "small", "b").values["label"] == "b"


def test_removed_records_are_gone_and_the_others_stay(tmp_path):
    keep_some(tmp_path, "a", "b")
    rewrite(file_of(tmp_path, "small"), remove=["a"])
    assert keys(file_of(tmp_path, "small")) == ["b"]


def test_a_damaged_record_is_none_and_the_others_are_found(tmp_path):
    keep_some(tmp_path, "a", "b")
    file = file_of(tmp_path, "small")
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("a/better.npy").header_offset
    data = bytearray(file.read_bytes())
    data[start + 60] ^= 0xFF
    file.write_bytes(data)
    assert find(tmp_path, "small", "a") is None
    assert find(tmp_path, "small", "b") is not None
    keep_some(tmp_path, "c")
    assert keys(file) == ["b", "c"]


@pytest.mark.parametrize("content", [b"", b"PK", b"a text", b"PK\x05\x06"])
def test_a_file_that_is_no_zip_is_refused_and_left_alone(tmp_path, content):
    file = file_of(tmp_path, "small")
    file.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"small.zip: damaged; copy it again, or remove it"):
        find(tmp_path, "small", "a")
    with pytest.raises(ArtefactError, match="damaged"):
        keep_some(tmp_path, "a")
    assert file.read_bytes() == content


def test_values_that_are_no_json_count_as_no_record(tmp_path):
    with zipfile.ZipFile(file_of(tmp_path, "small"), "w") as archive:
        archive.writestr("a/record.json", "{")
        archive.writestr("b/better.npy", "no array")
    assert find(tmp_path, "small", "a") is None
    assert find(tmp_path, "small", "b") is None


def old_record(folder, key):
    """A folder as earlier versions kept a record."""

    def write(fresh):
        ranks = {name: ARRAYS[name] for name in records.RANKS}
        np.savez_compressed(fresh / "ranks.npz", **ranks)
        kernel = ARRAYS["kernels/width 8, filter 1"]
        np.savez_compressed(fresh / "kernels.npz", **{"width 8, filter 1": kernel})
        return {"record": {**VALUES, "label": key}}

    folder.mkdir(parents=True, exist_ok=True)
    write_folder(folder / key, write)


def test_records_of_earlier_versions_are_found_and_can_be_merged(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old_record(old, "a")
    keep_some(new, "b")
    keep_some(old, "b", "c")
    found = find(old, "small", "a")
    assert merge(old, new) == 2
    assert merge(old, new) == 0
    assert keys(file_of(new, "small")) == ["a", "b", "c"]
    copied = find(new, "small", "a")
    for record in (found, copied):
        assert record.values == {**VALUES, "label": "a"}
        assert record.arrays.keys() == ARRAYS.keys()
        assert all((record.arrays[name] == array).all() for name, array in ARRAYS.items())


def test_a_damaged_folder_of_an_earlier_version_counts_as_none(tmp_path):
    old_record(tmp_path, "a")
    (tmp_path / "a" / "ranks.npz").write_bytes(b"PK")
    assert find(tmp_path, "small", "a") is None
    (tmp_path / "a" / "manifest.json").write_text(json.dumps({}))
    assert find(tmp_path, "small", "a") is None
    assert merge(tmp_path, tmp_path / "new") == 0
