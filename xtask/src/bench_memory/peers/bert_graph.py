"""The ONNX graph of a BERT sentence encoder, from its safetensors weights.

The graph has the shapes that exporters write, so that ONNX Runtime's transformer optimiser finds its patterns: the
optimised graph is what is measured. `fused` counts the operators that prove it.
"""

import collections
import json
import math
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from safetensors.numpy import load_file

# Operators of an optimised encoder of six layers must be these; otherwise the peer is not at its best.
EXPECTED = {"Attention": 1, "SkipLayerNormalization": 2, "Gelu": 1}


class Graph:
    """Collects nodes and weights."""

    def __init__(self):
        self.nodes, self.weights, self.count = [], [], 0

    def weight(self, array, name):
        self.weights.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def number(self, *values, kind=np.int64, flat=False):
        self.count += 1
        array = np.array(values if len(values) > 1 or not flat else values[0], dtype=kind)
        return self.weight(array, f"constant_{self.count}")

    def add(self, op, *inputs, **attributes):
        self.count += 1
        out = f"{op.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=f"{op}_{self.count}", **attributes))
        return out


def build(folder, path):
    """Writes the graph in 32-bit floats; returns heads, width and layers."""
    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = {name.removeprefix("bert."): value for name, value in load_file(folder / "model.safetensors").items()}
    width, heads, epsilon = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]
    graph = Graph()

    def norm(value, name):
        gain, shift = (graph.weight(weights[f"{name}.{part}"], f"{name}.{part}") for part in ("weight", "bias"))
        return graph.add("LayerNormalization", value, gain, shift, axis=-1, epsilon=epsilon)

    def dense(value, name):
        matrix = graph.weight(weights[f"{name}.weight"].T.astype(np.float32), f"{name}.weight")
        bias = graph.weight(weights[f"{name}.bias"].astype(np.float32), f"{name}.bias")
        return graph.add("Add", bias, graph.add("MatMul", value, matrix))

    def table(name):
        name = f"embeddings.{name}_embeddings.weight"
        return graph.weight(weights[name].astype(np.float32), name)

    # Embeddings: positions are cut from a constant to the length of the text.
    positions = graph.weight(np.arange(config["max_position_embeddings"], dtype=np.int64)[None], "position_ids")
    length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.number(1, flat=True), axis=0)
    length = graph.add("Unsqueeze", length, graph.number(0))
    positions = graph.add("Slice", positions, graph.number(0), length, graph.number(1), graph.number(1))
    hidden = graph.add("Gather", table("word"), "input_ids", axis=0)
    hidden = graph.add("Add", hidden, graph.add("Gather", table("token_type"), "token_type_ids", axis=0))
    hidden = graph.add("Add", hidden, graph.add("Gather", table("position"), positions, axis=0))
    hidden = norm(hidden, "embeddings.LayerNorm")

    mask = graph.add("Unsqueeze", "attention_mask", graph.number(1))
    mask = graph.add("Cast", graph.add("Unsqueeze", mask, graph.number(2)), to=TensorProto.FLOAT)
    mask = graph.add("Sub", graph.number(1.0, kind=np.float32, flat=True), mask)
    mask = graph.add("Mul", mask, graph.number(-10000.0, kind=np.float32, flat=True))
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"

        def split(part, order):
            value = dense(hidden, f"{name}.attention.self.{part}")
            value = graph.add("Reshape", value, graph.number(0, 0, heads, width // heads))
            return graph.add("Transpose", value, perm=order)

        query, key, value = split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]), split("value", [0, 2, 1, 3])
        scores = graph.add("MatMul", query, key)
        root = graph.number(math.sqrt(width // heads), kind=np.float32, flat=True)
        scores = graph.add("Add", graph.add("Div", scores, root), mask)
        mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
        mixed = graph.add("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = graph.add("Reshape", mixed, graph.number(0, 0, width))
        hidden = norm(
            graph.add("Add", dense(mixed, f"{name}.attention.output.dense"), hidden),
            f"{name}.attention.output.LayerNorm",
        )
        wide = dense(hidden, f"{name}.intermediate.dense")
        erf = graph.add("Erf", graph.add("Div", wide, graph.number(math.sqrt(2.0), kind=np.float32, flat=True)))
        gelu = graph.add("Mul", wide, graph.add("Add", erf, graph.number(1.0, kind=np.float32, flat=True)))
        gelu = graph.add("Mul", gelu, graph.number(0.5, kind=np.float32, flat=True))
        hidden = norm(graph.add("Add", dense(gelu, f"{name}.output.dense"), hidden), f"{name}.output.LayerNorm")

    # The mean of the tokens' vectors, at length one.
    taking_part = graph.add("Unsqueeze", graph.add("Cast", "attention_mask", to=TensorProto.FLOAT), graph.number(2))
    total = graph.add("ReduceSum", graph.add("Mul", hidden, taking_part), graph.number(1), keepdims=0)
    mean = graph.add("Div", total, graph.add("ReduceSum", taking_part, graph.number(1), keepdims=0))
    size = graph.add("ReduceSum", graph.add("Mul", mean, mean), graph.number(1), keepdims=1)
    graph.nodes.append(helper.make_node("Div", [mean, graph.add("Sqrt", size)], ["vector"], name="vector"))

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", width])
    built = helper.make_graph(graph.nodes, "encoder", inputs, [output], graph.weights)
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return heads, width, config["num_hidden_layers"]


def operators(path):
    """How often each operator stands in a graph."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return dict(sorted(collections.Counter(node.op_type for node in nodes).items()))


def make(folder, out):
    """Writes the graphs into `out`: in 32-bit floats, fused by ONNX Runtime's optimiser, and that made int8; and made
    int8 as it was exported. The operators of each."""
    out = pathlib.Path(out)
    names = ("plain", "fp32", "int8-fused", "int8-plain")
    plain, floats, fused, unfused = (str(out / f"{name}.onnx") for name in names)
    heads, width, layers = build(folder, plain)
    options = FusionOptions("bert")
    model = optimizer.optimize_model(
        plain, "bert", num_heads=heads, hidden_size=width, optimization_options=options, opt_level=0
    )
    model.save_model_to_file(floats)
    found = operators(floats)
    for op, each in EXPECTED.items():
        there = found.get(op, 0) + (found.get("BiasGelu", 0) if op == "Gelu" else 0)
        if there < each * layers:
            raise RuntimeError(f"ONNX Runtime's optimiser made {there} {op} of {each * layers}: {found}")
    # Shapes behind fused operators are not inferred; every value is a float.
    kinds = {"DefaultTensorType": TensorProto.FLOAT}
    quantise = {"per_channel": True, "weight_type": QuantType.QInt8, "extra_options": kinds}
    quantize_dynamic(floats, fused, **quantise)
    # Left to what ONNX Runtime fuses when it opens it, a short text is faster and a long one slower.
    quantize_dynamic(plain, unfused, **quantise)
    return {"fp32": found, "int8-fused": operators(fused), "int8-plain": operators(unfused)}
