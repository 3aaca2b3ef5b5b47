"""docs/export.md runs, and all its ways give the lists of the run."""

import ast
import sys

import pytest

from tests.docs.test_readme import ROOT, blocks, commands, run

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_arrays_onnx_index_and_hub_give_the_lists_of_the_run(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (console,) = blocks(PAGE, "console")
    for command, _ in commands(console):
        run(["bash", "-c", command], tmp_path)
    code = "\n".join(blocks(PAGE, "python"))
    printed = run([sys.executable, "-W", "error", "-c", code], tmp_path).splitlines()
    lists = [ast.literal_eval(line) for line in printed]
    assert len(lists) == 4  # NumPy, ONNX, the index, the hub folder
    asked = "import comet_rec as cr; print(cr.load_model('runs/shop').recommend(['ada'], k=3)"
    shown = run([sys.executable, "-c", f"{asked}['item_id'].tolist())"], tmp_path)
    assert lists == [ast.literal_eval(shown)] * 4
    vectors = "\nprint(vectors.shape, np.isfinite(scores).all())"
    more = code.split("from comet_rec")[0] + vectors
    assert "(2, " in run([sys.executable, "-c", more], tmp_path)


def test_the_script_of_the_page_has_ten_lines():
    script = blocks(PAGE, "python")[0].strip().splitlines()
    statements = [line for line in script if line and not line.startswith(("import", "from"))]
    assert len(statements) <= 10
