"""Nobody guesses what a model, a setting or a run has: it is declared (`models/interfaces.py`)."""

from __future__ import annotations

import ast
from pathlib import Path

import comet_rec

SOURCE = Path(comet_rec.__file__).parent
FOREIGN = ("reading/", "data/ids.py")
"""Places that recognise objects of other libraries: frames, arrays, scalars."""
EXCEPTIONS = {
    # Objects of other libraries: frames, Arrow columns, masked arrays.
    ("data/id_lists.py", "as_py"),
    ("data/id_lists.py", "values"),
    ("data/id_lists.py", "columns"),
    ("data/id_lists.py", "collect"),
    ("data/id_lists.py", "collect_schema"),
    ("data/id_lists.py", "column_names"),
    ("data/id_lists.py", "ndim"),
    ("data/id_lists.py", "__array__"),
    ("data/id_lists.py", "to_list"),
    ("data/id_lists.py", "to_numpy"),
    # What an operating system or a C library may lack.
    ("artefact/folder.py", "renameat2"),
    ("cli/interrupt.py", "SIGHUP"),
    ("cli/terminal.py", "buffer"),
    ("estimators/surroundings.py", "register_at_fork"),
    ("files.py", "O_NONBLOCK"),
    # Errors of the system have a text of their own, others have not.
    ("artefact/folder.py", "strerror"),
    ("cli/options.py", "strerror"),
    ("files.py", "strerror"),
    # Whatever a caller gives as a model: a fitted estimator, or an object of somebody else.
    ("estimators/evaluate.py", "run"),
    ("training/pretraining.py", "run"),
}
"""File and attribute, where a declaration cannot remove the question."""


def guesses(path: Path) -> list[tuple[int, str]]:
    """Line and attribute of each `hasattr`, and of each `getattr` with a default."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        with_default = node.func.id == "getattr" and len(node.args) > 2
        if with_default or node.func.id == "hasattr":
            attribute = node.args[1]
            name = (
                attribute.value if isinstance(attribute, ast.Constant) else ast.unparse(attribute)
            )
            found.append((node.lineno, str(name)))
    return found


def test_no_attribute_of_a_model_setting_or_run_is_guessed():
    guessed = []
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        for line, attribute in guesses(path):
            if not file.startswith(FOREIGN) and (file, attribute) not in EXCEPTIONS:
                guessed.append(f"{file}:{line}: {attribute}")
    assert guessed == []


def test_guesses_are_found(tmp_path):
    file = tmp_path / "file.py"
    file.write_text("hasattr(a, 'b')\ngetattr(a, 'b')\ngetattr(a, c, None)\n")
    assert guesses(file) == [(1, "b"), (3, "c")]
