"""The notebook that trains with PyTorch."""

import notebook


def test_train_runs():
    text = notebook.run("train.ipynb")
    assert "epoch 10: " in text and "version 11" in text and "type_av" in text
