"""Checks of saving and loading."""

from __future__ import annotations

import copy
import os
import pickletools
from pathlib import Path

from comet_rec.testing.subject import (
    Subject,
    assert_one_line,
    check,
    equal,
    in_process,
    lists_of_loaded,
    offered,
    plain,
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
        found = in_process("spawn", lists_of_loaded, subject.load, os.fspath(folder))
    equal(plain(subject.fitted.recommend(k=5)), found)


@check
def a_second_save_replaces_the_first(subject: Subject) -> None:
    """Saved where an earlier one stands, the new one takes its place."""
    other = subject.fit(subject.planted)
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
    """No saved file is a pickle that calls a function when it is loaded."""
    with saved(subject.fitted) as folder:
        files = [folder] if folder.is_file() else [p for p in folder.rglob("*") if p.is_file()]
        for path in files:
            assert not calls_functions(path), f"{path.name} is a pickle that executes code"


def calls_functions(path: Path) -> bool:
    """Whether a file is a pickle with an operation that calls a function."""
    content = path.read_bytes()
    if content[:2] == b"PK":  # an archive, as `torch.save` and `np.savez` write it
        return b".pkl" in content
    try:
        names = [operation.name for operation, _, _ in pickletools.genops(content)]
    except Exception:  # whatever is no pickle
        return False
    return any(name in ("REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX") for name in names)


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
