"""Writes add_one.onnx: y = x + 1 for x of shape (N, 3), f32.

    python3 -m venv venv && venv/bin/pip install onnx && venv/bin/python make.py
"""
import pathlib

import onnx
from onnx import TensorProto, helper

graph = helper.make_graph(
    nodes=[helper.make_node("Add", ["x", "one"], ["y"])],
    name="add_one",
    inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
    outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    initializer=[helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, pathlib.Path(__file__).with_name("add_one.onnx"))
