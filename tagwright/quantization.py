"""Graphs with small weights: from fp32 ONNX to int8 and to 4 bits. No torch here.

`to_int8()` computes every product with a weight matrix in 8-bit integers: the weights with one scale per output channel, the
activations with one fixed scale per product, chosen on calibration texts. So a text's scores do not depend on the others in
its batch, as they do where each batch finds its own scale, and no time goes into finding it. What that costs is kept down in
three ways: a part of each channel's size moves into the weights (SmoothQuant, Xiao et al. 2023); the few channels that are
far larger than the rest stay in fp32 (LLM.int8(), Dettmers et al. 2022); and weights are rounded so that their errors cancel
on the calibration texts (GPTQ, Frantar et al. 2023). Tables of embeddings get one scale per row.

`to_q4()` gives each block of 32 weights, embeddings too, 4 bits a weight, a scale and a zero point, rounds the weights of
products as above, and computes in fp32.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

SMOOTHING = 0.75  # the power of a channel's size that moves into the weights: 0 none, 1 all
OUTLIER = 3  # a channel so many times as large as the median one is an outlier …
MAX_OUTLIERS = 8  # … of which so many, the largest, stay in fp32; where no other is left, smoothing is not worth its time
BLOCK = 32  # weights that share a 4-bit scale
CONTRIB = "com.microsoft"  # onnxruntime's own operators, which all its builds have

@dataclass
class Activation:
    """What calibration saw of an activation: the range of each channel, and how channels go together."""

    least: np.ndarray  # (channels,)
    largest: np.ndarray  # (channels,)
    moments: np.ndarray  # (channels, channels): the sum of x xᵀ over all tokens x

    def __or__(self, other: "Activation") -> "Activation":
        """The two seen as one."""
        return Activation(np.minimum(self.least, other.least), np.maximum(self.largest, other.largest),
                          self.moments + other.moments)

    @property
    def size(self) -> np.ndarray:
        """The largest absolute value of each channel."""
        return np.maximum(np.maximum(-self.least, self.largest), 1e-5)


def calibrate(model: onnx.ModelProto, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Activation]:
    """Each activation that a weight matrix multiplies, by its name in the graph, as it is for some batches of inputs
    (`input_ids`, `attention_mask`: (batch, tokens))."""
    names = sorted({product.input[0] for product in _products(model.graph)})
    watched = _copy(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                                for name in names if name not in {output.name for output in model.graph.output})
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    found: dict[str, Activation] = {}
    for batch in batches:
        for name, values in zip(names, session.run(names, dict(batch)), strict=True):
            channels = values.reshape(-1, values.shape[-1])  # (tokens or texts, channels)
            seen = Activation(channels.min(0), channels.max(0), channels.T @ channels)
            found[name] = found[name] | seen if name in found else seen
    return found


def to_int8(model: onnx.ModelProto, activations: dict[str, Activation]) -> onnx.ModelProto:
    """The graph with its products and its tables of embeddings in int8; `activations` are what `calibrate` found for it.

    Raises KeyError where they are another graph's.
    """
    model = _copy(model)
    graph, weights, rewriting = model.graph, _weights(model.graph), _Rewriting()
    biases = _bias_additions(graph, weights)
    absorbed = {addition.output[0] for addition in biases.values()}
    products = {node.output[0]: node for node in _products(graph)}
    read = _read_by_weight(graph, activations)
    for node in graph.node:
        if node.output[0] in products:
            addition = biases.get(node.output[0])
            _product_in_int8(rewriting, node, weights, activations[node.input[0]], read[node.input[1]], addition)
        elif node.op_type == "Gather" and _is_table(weights.get(node.input[0])):
            _lookup_in_int8(rewriting, node, weights[node.input[0]])
        elif node.output[0] not in absorbed:
            rewriting.nodes.append(node)
    return rewriting.finish(model)


def _product_in_int8(rewriting: "_Rewriting", node: onnx.NodeProto, weights: dict[str, np.ndarray], activation: Activation,
                     read: Activation, addition: onnx.NodeProto | None) -> None:
    """activation @ weight + bias, as integers, plus what the outliers bring."""
    source, name = node.input[:2]
    weight = _as_matrix(node, weights[name])  # (inputs, outputs)
    outliers = _outliers(read.size, weight.shape)
    smooth = _smoothing(read.size, outliers)
    least, largest = (np.delete(bound / smooth, outliers) for bound in (activation.least, activation.largest))
    least, largest = min(least.min(), 0.0), max(largest.max(), 0.0)
    scale = np.float32(max(largest - least, 1e-6) / 255)

    # The query, key and value of a layer read the same activation, which is quantized once.
    quantized = f"{source}_{rewriting.number(smooth)}"
    if rewriting.constant(f"{quantized}_scale", scale):
        rewriting.constant(f"{quantized}_zero", np.uint8(np.clip(np.round(-least / scale), 0, 255)))
        if (smooth != 1).any():
            rewriting.constant(f"{quantized}_smooth", 1 / smooth)
            rewriting.add("Mul", [source, f"{quantized}_smooth"], source := f"{quantized}_smoothed")
        rewriting.add("QuantizeLinear", [source, f"{quantized}_scale", f"{quantized}_zero"], f"{quantized}_int8")
    if f"{name}_int8" not in rewriting.constants:
        integers, scales = _integers(weight, smooth, outliers, read.moments)
        rewriting.constant(f"{name}_int8", integers)
        rewriting.constant(f"{name}_scales", scales)
        rewriting.constant(f"{name}_outliers", outliers)
        rewriting.constant(f"{name}_fp32", weight[outliers])

    last = node if addition is None else addition
    result, bias = last.output[0], [entry for entry in last.input if entry in weights and weights[entry].ndim == 1]
    inputs = [f"{quantized}_int8", f"{name}_int8", f"{quantized}_scale", f"{name}_scales", f"{quantized}_zero", "", *bias]
    rewriting.add("MatMulIntegerToFloat", inputs, f"{result}_most" if len(outliers) else result, domain=CONTRIB)
    if len(outliers):
        rewriting.add("Gather", [node.input[0], f"{name}_outliers"], f"{result}_outliers", axis=-1)
        rewriting.add("MatMul", [f"{result}_outliers", f"{name}_fp32"], f"{result}_rest")
        rewriting.add("Add", [f"{result}_most", f"{result}_rest"], result)


def _integers(weight: np.ndarray, smooth: np.ndarray, outliers: np.ndarray,
              moments: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """A weight as int8, (inputs, outputs), and its scales, (outputs,); the outliers' rows are 0."""
    smoothed = weight * smooth[:, None]
    smoothed[outliers] = 0
    scales = np.maximum(np.abs(smoothed).max(0) / 127, 1e-9).astype(np.float32)
    if moments is None:
        return np.round(smoothed / scales).astype(np.int8), scales
    integers = np.zeros(weight.shape, np.int8)
    kept = np.delete(np.arange(len(weight)), outliers)
    integers[kept] = _rounded(smoothed[kept] / scales, (moments / np.outer(smooth, smooth))[np.ix_(kept, kept)],
                              lambda row, values: np.clip(np.round(values), -127, 127))
    return integers, scales


def _rounded(weight: np.ndarray, moments: np.ndarray, nearest: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """The weight, (inputs, outputs), in values that can be stored, of which `nearest(row, values)` gives those next to a
    row's: row by row, where each makes up for the errors of those before it, as far as its input goes together with theirs
    (GPTQ, Frantar et al. 2023)."""
    damped = moments.astype(np.float64) + 0.01 * max(np.trace(moments) / len(moments), 1e-9) * np.eye(len(moments))
    carry = np.linalg.cholesky(np.linalg.inv(damped)).T  # upper triangle
    weight, rounded = weight.astype(np.float64), np.zeros(weight.shape)
    for start in range(0, len(weight), 64):  # the far rows get the errors of 64 at a time: one large product
        block = slice(start, start + 64)
        errors = np.zeros_like(weight[block])
        for row in range(start, min(start + 64, len(weight))):
            rounded[row] = nearest(row, weight[row])
            errors[row - start] = (weight[row] - rounded[row]) / carry[row, row]
            weight[row + 1 : block.stop] -= np.outer(carry[row, row + 1 : block.stop], errors[row - start])
        weight[block.stop :] -= carry[block, block.stop :].T @ errors
    return rounded


def extend_head(model: onnx.ModelProto, rows: np.ndarray, biases: np.ndarray) -> onnx.ModelProto:
    """An int8 or a 4-bit graph whose head, which makes `logits`, has more labels: `rows` (labels, hidden), `biases`
    (labels,)."""
    model = _copy(model)
    graph, weights = model.graph, _weights(model.graph)
    made_by = {node.output[0]: node for node in graph.node}
    last = made_by["logits"]
    if last.op_type == "Add" and made_by[last.input[0]].op_type == "MatMulNBits":
        product, axis = made_by[last.input[0]], 0
        added = dict(zip(product.input[1:], _four_bits(rows.T, None), strict=True)) | {last.input[1]: biases.astype(np.float32)}
        next(attribute for attribute in product.attribute if attribute.name == "N").i += len(rows)
    else:
        axis, added = -1, _rows_in_int8(made_by, last, weights, rows, biases)
    for tensor in graph.initializer:
        if tensor.name in added:
            wider = np.concatenate([weights[tensor.name], added[tensor.name]], axis=axis)
            tensor.CopyFrom(numpy_helper.from_array(wider, tensor.name))
    for output in graph.output:
        if output.name == "logits":
            output.type.tensor_type.shape.dim[1].dim_value += len(rows)
    return model


def _rows_in_int8(made_by: dict[str, onnx.NodeProto], last: onnx.NodeProto, weights: dict[str, np.ndarray],
                  rows: np.ndarray, biases: np.ndarray) -> dict[str, np.ndarray]:
    """What joins each constant of an int8 head."""
    product, rest = (made_by[name] for name in last.input) if last.op_type == "Add" else (last, None)
    outliers = weights[made_by[rest.input[0]].input[1]] if rest else np.zeros(0, np.int64)
    source = made_by[made_by[product.input[0]].input[0]]  # what QuantizeLinear reads
    smoothed = source.output[0].endswith("_smoothed")
    smooth = 1 / weights[source.input[1]] if smoothed else np.ones(rows.shape[1], np.float32)
    integers, scales = _integers(rows.T, smooth, outliers, None)
    added = {product.input[1]: integers, product.input[3]: scales, product.input[6]: biases.astype(np.float32)}
    return added | ({rest.input[1]: rows.T[outliers]} if rest else {})


def _outliers(size: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Indices of the channels that stay in fp32: none where the output is as wide as the input or wider, as adding to it would
    cost more than they are worth."""
    if shape[1] >= shape[0]:
        return np.zeros(0, np.int64)
    largest = np.argsort(-size, kind="stable")[:MAX_OUTLIERS]
    return np.sort(largest[size[largest] > OUTLIER * np.median(size)])


def _smoothing(size: np.ndarray, outliers: np.ndarray) -> np.ndarray:
    """What each channel is divided by before it is quantized, and its weights multiplied by: (inputs,)."""
    if np.delete(size, outliers).max() <= OUTLIER * np.median(size):
        return np.ones(len(size), np.float32)
    return ((size / np.exp(np.log(size).mean())) ** SMOOTHING).astype(np.float32)


def _lookup_in_int8(rewriting: "_Rewriting", node: onnx.NodeProto, table: np.ndarray) -> None:
    """A row of a table and its scale, multiplied."""
    name, result = node.input[0], node.output[0]
    scales = np.maximum(np.abs(table).max(1, keepdims=True) / 127, 1e-9).astype(np.float32)  # (rows, 1)
    if rewriting.constant(f"{name}_int8", np.round(table / scales).astype(np.int8)):
        rewriting.constant(f"{name}_scales", scales)
    rewriting.add("Gather", [f"{name}_int8", node.input[1]], f"{result}_int8")
    rewriting.add("Cast", [f"{result}_int8"], f"{result}_unscaled", to=onnx.TensorProto.FLOAT)
    rewriting.add("Gather", [f"{name}_scales", node.input[1]], f"{result}_scales")
    rewriting.add("Mul", [f"{result}_unscaled", f"{result}_scales"], result)


def to_q4(model: onnx.ModelProto, activations: dict[str, Activation]) -> onnx.ModelProto:
    """The graph with the weights of its products and its tables of embeddings in 4 bits; `activations` as for `to_int8`."""
    model = _copy(model)
    weights, rewriting = _weights(model.graph), _Rewriting()
    products, read = {node.output[0] for node in _products(model.graph)}, _read_by_weight(model.graph, activations)
    for node in model.graph.node:
        if node.output[0] not in products:
            rewriting.nodes.append(node)
            continue
        (source, name, *bias), result = node.input, node.output[0]
        weight = _as_matrix(node, weights[name])
        parts = [f"{name}_{part}" for part in ("q4", "scales", "zeros")]
        if parts[0] not in rewriting.constants:
            for part, values in zip(parts, _four_bits(weight, read[name].moments), strict=True):
                rewriting.constant(part, values)
        rewriting.add("MatMulNBits", [source, *parts], f"{result}_product" if bias else result, domain=CONTRIB,
                      K=weight.shape[0], N=weight.shape[1], bits=4, block_size=BLOCK)
        if bias:
            rewriting.add("Add", [f"{result}_product", *bias], result)
    rewriting.finish(model)
    quantizer = MatMulNBitsQuantizer(model, algo_config=DefaultWeightOnlyQuantConfig(
        block_size=BLOCK, is_symmetric=False, bits=4, op_types_to_quantize=("Gather",), quant_axes=(("Gather", 1),)))
    logging.disable(logging.WARNING)  # it names every node that it meets
    try:
        with np.errstate(invalid="ignore"):  # a block of zeros has the scale 0
            quantizer.process()
    finally:
        logging.disable(logging.NOTSET)
    return quantizer.model.model


def _four_bits(weight: np.ndarray, moments: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A weight, (inputs, outputs), as MatMulNBits takes it: its cells, (outputs, blocks, BLOCK / 2), and its zero points,
    (outputs, blocks / 2), two a byte, and its scales, (outputs, blocks)."""
    inputs, outputs = weight.shape
    blocks = -(-inputs // BLOCK)
    padded = np.pad(weight, ((0, blocks * BLOCK - inputs), (0, 0))).reshape(blocks, BLOCK, outputs)
    least, largest = np.minimum(padded.min(1), 0), np.maximum(padded.max(1), 0)  # (blocks, outputs)
    scales = np.maximum((largest - least) / 15, 1e-9).astype(np.float32)
    zeros = np.round(-least / scales)

    def nearest(row: int, values: np.ndarray) -> np.ndarray:
        scale, zero = scales[row // BLOCK], zeros[row // BLOCK]
        return (np.clip(np.round(values / scale + zero), 0, 15) - zero) * scale

    rounded = padded.copy()
    flat = rounded.reshape(-1, outputs)
    flat[:inputs] = weight if moments is None else _rounded(weight, moments, nearest)
    cells = np.clip(np.round(rounded / scales[:, None] + zeros[:, None]), 0, 15).astype(np.uint8)
    zeros = np.pad(zeros.astype(np.uint8), ((0, blocks % 2), (0, 0)))
    return (np.ascontiguousarray((cells[:, 0::2] | cells[:, 1::2] << 4).transpose(2, 0, 1)),
            np.ascontiguousarray(scales.T), np.ascontiguousarray((zeros[0::2] | zeros[1::2] << 4).T))


def without_einsums(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with XLNet's linear layers written as the products that they are: it has them as Einsum with a weight of
    (hidden, heads, size), into the heads or out of them."""
    model = _copy(model)
    weights, rewriting = _weights(model.graph), _Rewriting()
    for node in model.graph.node:
        weight = weights.get(node.input[-1]) if node.op_type == "Einsum" else None
        equation = node.attribute[0].s.decode() if weight is not None else ""
        if equation not in ("ibh,hnd->ibnd", "ibnd,hnd->ibh"):
            rewriting.nodes.append(node)
            continue
        hidden, heads, size = weight.shape
        matrix, result = weight.reshape(hidden, heads * size), node.output[0]
        matrix_name, shape_name, flat = (f"{result}_{part}" for part in ("matrix", "shape", "flat"))
        if equation.endswith("ibnd"):
            rewriting.constant(matrix_name, matrix)
            rewriting.constant(shape_name, np.array([0, 0, heads, size]))
            rewriting.add("MatMul", [node.input[0], matrix_name], flat)
            rewriting.add("Reshape", [flat, shape_name], result)
        else:
            rewriting.constant(matrix_name, np.ascontiguousarray(matrix.T))
            rewriting.constant(shape_name, np.array([0, 0, heads * size]))
            rewriting.add("Reshape", [node.input[0], shape_name], flat)
            rewriting.add("MatMul", [flat, matrix_name], result)
    return rewriting.finish(model)


class _Rewriting:
    """The nodes and constants of a graph that is written anew."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._numbers: dict[bytes, int] = {}

    def constant(self, name: str, values) -> bool:
        """Add a constant; False where there is one of the name."""
        if name in self.constants:
            return False
        self.constants[name] = numpy_helper.from_array(np.asarray(values), name)
        return True

    def add(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}_node", domain=domain, **attributes))

    def number(self, values: np.ndarray) -> int:
        """A number for these values, the same for the same ones."""
        return self._numbers.setdefault(values.tobytes(), len(self._numbers))

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Put the nodes into the model, with the constants, new and old, that they use."""
        graph = model.graph
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in [*graph.initializer, *self.constants.values()] if tensor.name in used]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(kept)
        if any(node.domain == CONTRIB for node in self.nodes):
            model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
        return model


def _products(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes that multiply an activation by a weight matrix."""
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    return (node for node in graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights)


def _read_by_weight(graph: onnx.GraphProto, activations: dict[str, Activation]) -> dict[str, Activation]:
    """A weight -> all that it multiplies: ALBERT's layers have the same weights."""
    read: dict[str, Activation] = {}
    for node in _products(graph):
        name, activation = node.input[1], activations[node.input[0]]
        read[name] = read[name] | activation if name in read else activation
    return read


def _bias_additions(graph: onnx.GraphProto, weights: dict[str, np.ndarray]) -> dict[str, onnx.NodeProto]:
    """A product's result -> the node that adds a bias to it, and is all that reads it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = {}
    for product in _products(graph):
        reader, *others = readers.get(product.output[0], [None])
        if reader is not None and not others and reader.op_type == "Add" \
                and any(name in weights and weights[name].ndim == 1 for name in reader.input):
            found[product.output[0]] = reader
    return found


def _as_matrix(node: onnx.NodeProto, weight: np.ndarray) -> np.ndarray:
    """A product's weight as (inputs, outputs)."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return weight.T if transposed else weight


def _is_table(weight: np.ndarray | None) -> bool:
    """Whether a looked-up constant is a table of embeddings that is worth it: of segments there are two."""
    return weight is not None and weight.ndim == 2 and weight.dtype == np.float32 and len(weight) > 2


def _weights(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the exporter's notes on shapes, which do not fit a changed graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    return copy
