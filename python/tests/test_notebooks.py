"""The notebook that needs no PyTorch."""

import notebook


def test_evaluate_and_compare_runs():
    text = notebook.run("evaluate.ipynb")
    assert "version=1" in text and "fused" in text and "<td " in text
