"""Writes add_one.onnx (y = x + 1 for x of shape (N, 3), f32), fused.onnx, picky.onnx and fp16 models.

    python3 -m venv venv && venv/bin/pip install onnx && venv/bin/python make.py
"""
import pathlib
import sys

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

# The interface of a fused CLAP's audio model; gives the mean over the frames of each of the four channels' 64 bands, and
# whether the clip is longer.
graph = helper.make_graph(
    nodes=[
        helper.make_node("ReduceMean", ["input_features"], ["bands"], axes=[2], keepdims=0),
        helper.make_node("Flatten", ["bands"], ["flat"]),
        helper.make_node("Cast", ["is_longer"], ["longer"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["flat", "longer"], ["audio_embeds"], axis=1),
    ],
    name="fused",
    inputs=[
        helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ["n", 4, 1001, 64]),
        helper.make_tensor_value_info("is_longer", TensorProto.BOOL, ["n", 1]),
    ],
    outputs=[helper.make_tensor_value_info("audio_embeds", TensorProto.FLOAT, ["n", 257])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, pathlib.Path(__file__).with_name("fused.onnx"))

# A vision model that gives zeros, which are no direction, for a picture that is black, and for no other: not for the
# zeros that it is tried with, which are grey.
graph = helper.make_graph(
    nodes=[
        helper.make_node("GlobalMaxPool", ["pixel_values"], ["top"]),
        helper.make_node("Flatten", ["top"], ["flat"]),
        helper.make_node("Sub", ["flat", "black"], ["image_embeds"]),
    ],
    name="picky",
    inputs=[helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, 64, 64])],
    outputs=[helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["n", 3])],
    # (0 - mean) / std with mean 0.5 and std 0.25: exact.
    initializer=[helper.make_tensor("black", TensorProto.FLOAT, [1, 3], [-2.0, -2.0, -2.0])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, pathlib.Path(__file__).with_name("picky.onnx"))

# fp16 exports, as Hugging Face's `onnx-community` folders have them: weights, inputs and outputs are f16. They are the tiny
# models of golden/clip and golden/clap (../shared), converted; golden/ keeps the f32 ones and their embeddings.
#
#     venv/bin/pip install onnxconverter-common && venv/bin/python make.py ../../../shared/golden
if len(sys.argv) > 1:
    from onnxconverter_common import float16

    golden = pathlib.Path(sys.argv[1])
    for kind, name in [("clip", "vision_model"), ("clip", "text_model")]:
        model = onnx.load(golden / kind / f"{name}.onnx")
        own = {node.name for node in model.graph.node if node.op_type == "Cast"}
        model = float16.convert_float_to_float16(model, keep_io_types=False)
        # The converter leaves the casts to f32 that the model had itself.
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.name in own and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
        onnx.save(model, pathlib.Path(__file__).with_name(f"{kind}_{name}_fp16.onnx"))
