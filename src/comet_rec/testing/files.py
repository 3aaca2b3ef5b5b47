"""Checks of saving and loading."""

from __future__ import annotations

import copy
import io
import os
import pickletools
import zipfile

from comet_rec.testing.subject import (
    Subject,
    assert_one_line,
    check,
    equal,
    in_new_process,
    lists_of_loaded,
    log_of,
    offered,
    plain,
    planted_columns,
    refused,
    saved,
)


@check
def a_loaded_one_recommends_the_same(subject: Subject) -> None:
    """Saved and loaded, a recommender gives the same lists and scores."""
    with saved(subject.fitted) as folder:
        loaded = subject.load(folder)
        equal(plain(subject.fitted.recommend(k=5)), plain(loaded.recommend(k=5)))


@check
def loaded_twice_it_is_the_same(subject: Subject) -> None:
    """Saved again after loading, a recommender still gives the same lists."""
    with saved(subject.fitted) as folder, saved(subject.load(folder)) as again:
        equal(plain(subject.fitted.recommend(k=5)), plain(subject.load(again).recommend(k=5)))


@check
def a_new_process_loads_it(subject: Subject) -> None:
    """A new process that loads it gives the same lists."""
    with saved(subject.fitted) as folder:
        found = in_new_process(lists_of_loaded, subject.load, os.fspath(folder))
    equal(plain(subject.fitted.recommend(k=5)), found)


@check
def a_second_save_replaces_the_first(subject: Subject) -> None:
    """Saved where an earlier one stands, the new one takes its place."""
    users, items, times = planted_columns()
    other = subject.fit(log_of(users, [f"new {item}" for item in items], times))
    with saved(subject.fitted) as folder:
        other.save(folder)
        equal(plain(other.recommend(k=5)), plain(subject.load(folder).recommend(k=5)))


@check
def saving_changes_no_list(subject: Subject) -> None:
    """A recommender that was saved recommends as before."""
    model = subject.fit(subject.planted)
    before = plain(model.recommend(k=5))
    with saved(model):
        equal(before, plain(model.recommend(k=5)))


@check
def nothing_is_saved_before_training(subject: Subject) -> None:
    """A recommender that is not trained refuses to be saved."""
    with saved(subject.fitted) as folder, refused():
        copy.deepcopy(subject.model).save(folder.parent / "untrained")


@check
def no_file_executes_code(subject: Subject) -> None:
    """No saved file is a pickle that calls a function when it is loaded, or holds one."""
    with saved(subject.fitted) as folder:
        files = [folder] if folder.is_file() else [p for p in folder.rglob("*") if p.is_file()]
        for path in files:
            assert not executes(path.read_bytes()), f"{path.name} executes code when it is loaded"


def executes(content: bytes) -> bool:
    """Whether a file is a pickle that calls a function, or an archive or array that holds one."""
    if content[:4] == b"PK\3\4":  # `torch.save` and `np.savez` write such archives
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(executes(archive.read(name)) for name in archive.namelist())
    if content[:6] == b"\x93NUMPY":  # an array of objects is a pickle behind a header
        return b"'|O'" in content[:256]
    if content[:1] != b"\x80":  # the first byte of pickles since protocol 2
        return False
    calls = ("REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX")
    try:
        return any(operation.name in calls for operation, _, _ in pickletools.genops(content))
    except Exception:  # arrays within the stream, as joblib writes them: it was a pickle so far
        return True


@check
def a_missing_folder_is_refused(subject: Subject) -> None:
    """Loading from where nothing is says so, in one line."""
    with saved(subject.fitted) as folder:
        try:
            subject.load(folder.parent / "missing")
        except (ValueError, OSError) as error:
            assert_one_line(error)
            return
    raise AssertionError("nothing was refused")


@check
def a_cut_file_is_refused(subject: Subject) -> None:
    """Loading refuses a file that lost its second half."""
    with saved(subject.fitted) as folder:
        files = [folder] if folder.is_file() else [p for p in folder.rglob("*") if p.is_file()]
        largest = max(files, key=lambda path: path.stat().st_size)
        os.truncate(largest, largest.stat().st_size // 2)
        try:
            subject.load(folder)
        except Exception as error:  # any error, but an error
            assert_one_line(error)
            return
    raise AssertionError(f"{largest.name} was cut in half, and nothing was said")


@check
def a_number_is_no_path(subject: Subject) -> None:
    """Saving to something that is no path is refused."""
    with saved(subject.fitted), refused(), offered():
        subject.fitted.save(3.5)
