"""A policy as an ONNX graph: to run with ONNX Runtime, or to take elsewhere.

The graph is built from the folded arrays of the numpy engine, whole sampler unrolled; torch is
not needed for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from controller.types import Array
from policies.engine_numpy import Float32, Folded, NumpyNetwork, network
from policies.manifest import Arrays
from policies.model import (
    ConsistencyModel,
    DeterministicModel,
    DiffusionModel,
    GaussianModel,
    Model,
    NetworkSettings,
    SamplerSettings,
    evaluations,
)
from policies.plan import plan, share_at_start
from policies.prefix import Known
from policies.sampling import Draws

if TYPE_CHECKING:
    import onnx

Shape = tuple[int | str | None, ...]
"""Sizes of an array; a name is a free size."""
Run = Callable[[dict[str, Array]], Float32]

OPSET = 18
IR_VERSION = 9
"""Old enough for the ONNX Runtimes of two years."""


class Graph:
    """An ONNX graph in the making. Values are names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._known: dict[bytes, str] = {}

    def constant(self, array: object, dtype: type = np.float32) -> str:
        """Return the name of a constant; equal ones are kept once."""
        from onnx import numpy_helper

        value: Array = np.asarray(array, dtype)
        key = value.tobytes() + str((value.shape, value.dtype)).encode()
        if key not in self._known:
            self._known[key] = f"c{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(value, self._known[key]))
        return self._known[key]

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:  # noqa: ANN401
        """Add a node and return the name of its output."""
        from onnx import helper

        output = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def linear(self, x: str, weight: Float32, bias: Float32) -> str:
        """Add x W^T + b."""
        return self.add("Gemm", x, self.constant(weight), self.constant(bias), transB=1)

    def mish(self, x: str) -> str:
        """Add Mish, x n / (n + 2) with e = exp(x), n = e (e + 2)."""
        two = self.constant(2.0)
        e = self.add("Exp", self.add("Min", x, self.constant(20.0)))
        n = self.add("Mul", e, self.add("Add", e, two))
        return self.add("Div", self.add("Mul", x, n), self.add("Add", n, two))

    def clip(self, x: str, low: object = -1.0, high: object = 1.0, name: str | None = None) -> str:
        """Add limits, which may differ between elements."""
        return self.add(
            "Max", self.add("Min", x, self.constant(high)), self.constant(low), name=name
        )

    def kept(self, x: str, name: str | None = None) -> str:
        """Add the input ``values`` in place of x where the input ``mask`` says so."""
        return self.add("Where", "mask", "values", x, name=name)

    def scaled(self, x: str, factor: float) -> str:
        """Add factor times x."""
        return self.add("Mul", x, self.constant(factor))

    def model(self, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> onnx.ModelProto:
        """Return the whole as a checked model; shapes may have names for free sizes."""
        import onnx
        from onnx import TensorProto, helper

        def info(name: str, shape: Shape) -> Any:  # noqa: ANN401
            kind = TensorProto.BOOL if name == "mask" else TensorProto.FLOAT
            return helper.make_tensor_value_info(name, kind, shape)

        def infos(values: dict[str, Shape]) -> list[Any]:
            return [info(name, shape) for name, shape in values.items()]

        graph = helper.make_graph(
            self.nodes, "policy", infos(inputs), infos(outputs), self.constants
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        made.ir_version = IR_VERSION
        onnx.checker.check_model(made)
        return made


def add_sampler(
    graph: Graph,
    model: Model,
    weights: Arrays,
    sampler: SamplerSettings,
    condition: str,
    known: bool = False,
) -> str:
    """Add the whole sampler; return the name of the encoded actions (N, A), not yet clipped.

    The graph's input ``noise`` is (K, N, A). Where some elements are ``known``, its inputs
    ``values`` and ``mask`` (N, A) say which.
    """
    drawn = [] if _is_certain(model, sampler) else range(evaluations(model, sampler))
    noises = [
        graph.add("Gather", "noise", graph.constant(step, np.int64), axis=0) for step in drawn
    ]
    match model:
        case ConsistencyModel() | DiffusionModel():
            return _chain(graph, model, weights, sampler, condition, noises, known)
    return _gaussian(graph, model, weights, sampler.temperature, condition, noises)


def _is_certain(model: Model, sampler: SamplerSettings) -> bool:
    """Return whether an action depends on the observation alone."""
    return isinstance(model, DeterministicModel) or (
        isinstance(model, GaussianModel) and sampler.temperature == 0.0
    )


def onnx_draws(model: Model, weights: Arrays) -> Draws:
    """Return what makes the draws of a policy in ONNX Runtime, one thread."""
    return lambda sampler: OnnxDraw(model, weights, sampler)


class OnnxDraw:
    """A draw in ONNX Runtime; the graph for known elements is made when first needed.

    Args:
        model: what the policy is made of.
        weights: its arrays.
        sampler: how it draws.
    """

    def __init__(self, model: Model, weights: Arrays, sampler: SamplerSettings) -> None:
        self._parts = model, weights, sampler
        self._run = self._session(known=False)
        self._run_known: Run | None = None

    def __call__(
        self, condition: Float32, noise: Float32, known: Known | None = None, /
    ) -> Float32:
        """Return (B, A)."""
        if known is None:
            return self._run({"condition": condition, "noise": noise})
        if self._run_known is None:
            self._run_known = self._session(known=True)
        given = {"condition": condition, "noise": noise}
        return self._run_known(given | {"values": known.values, "mask": known.mask})

    def _session(self, known: bool) -> Run:
        import onnxruntime

        model, weights, sampler = self._parts
        graph, size = Graph(), _action_size(weights)
        actions = add_sampler(graph, model, weights, sampler, "condition", known)
        if known:
            graph.kept(graph.clip(actions), name="action")
        else:
            graph.clip(actions, name="action")
        shapes: dict[str, Shape] = {
            "condition": ("N", None),
            "noise": (evaluations(model, sampler), "N", size),
        }
        shapes |= {"values": ("N", size), "mask": ("N", size)} if known else {}
        made = graph.model(shapes, {"action": ("N", size)})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        taken = {each.name for each in session.get_inputs()}

        def run(given: dict[str, Array]) -> Float32:
            given = {name: array for name, array in given.items() if name in taken}
            return cast("Float32", session.run(["action"], given)[0])

        return run


def _action_size(weights: Arrays) -> int:
    return int(weights["head.bias" if "head.bias" in weights else "last_fc.bias"].size)


def _chain(
    graph: Graph,
    model: ConsistencyModel | DiffusionModel,
    weights: Arrays,
    sampler: SamplerSettings,
    condition: str,
    noises: list[str],
    known: bool,
) -> str:
    net = network(weights, model.network)
    x = graph.scaled("values", share_at_start(model, sampler)) if known else ""
    for step, noise in zip(plan(model, sampler), noises, strict=True):
        spread = graph.scaled(noise, step.spread)
        x = graph.add("Add", x, spread) if x else spread
        folded = net.fold(step.label, step.scale, step.gain)
        inner = _network(graph, model.network, net, folded, x, condition)
        clean = graph.add("Add", graph.scaled(x, step.skip), inner)
        if step.limited:
            clean = graph.clip(clean)
        clean = graph.kept(clean) if known else clean
        if step.keep_x:
            kept = graph.scaled(clean, step.keep_clean), graph.scaled(x, step.keep_x)
            clean = graph.add("Add", *kept)
        x = clean
    return x


def _gaussian(
    graph: Graph,
    model: GaussianModel | DeterministicModel,
    weights: Arrays,
    temperature: float,
    condition: str,
    noises: list[str],
) -> str:
    def layer(x: str, name: str) -> str:
        pair = (cast("Float32", weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return graph.linear(x, *pair)

    h = condition
    for index in range(len(model.hidden)):
        h = graph.add("Relu", layer(h, f"fc{index}"))
    mean = layer(h, "last_fc")
    if isinstance(model, DeterministicModel) or not noises:
        return graph.add("Tanh", mean)
    log_std = graph.clip(layer(h, "last_fc_log_std"), model.log_std_min, model.log_std_max)
    spread = graph.scaled(graph.add("Mul", graph.add("Exp", log_std), noises[0]), temperature)
    if model.squash == "mean":
        return graph.add("Add", graph.add("Tanh", mean), spread)
    return graph.add("Tanh", graph.add("Add", mean, spread))


def _network(
    graph: Graph,
    settings: NetworkSettings,
    net: NumpyNetwork,
    folded: Folded,
    x: str,
    condition: str,
) -> str:
    """Add a network at one noise level."""

    def layer(x: str, name: str) -> str:
        return graph.linear(x, net.arrays[f"{name}.weight"], net.arrays[f"{name}.bias"])

    h = graph.linear(
        graph.add("Concat", x, condition, axis=1), folded.first.weight, folded.first.bias
    )
    if settings.kind == "mlp":
        activate = graph.mish if settings.activation == "mish" else _relu(graph)
        h = activate(h)
        for index in range(1, len(settings.hidden)):
            h = activate(layer(h, f"layers.{index}"))
        return graph.linear(h, folded.head.weight, folded.head.bias)
    h = graph.add("Relu", h)
    for index in range(len(settings.hidden)):
        block = f"blocks.{index}"
        affine = (graph.constant(net.arrays[f"{block}.norm.{part}"]) for part in ("weight", "bias"))
        inner = graph.add("LayerNormalization", h, *affine, axis=-1, epsilon=1e-5)
        inner = layer(graph.add("Relu", layer(inner, f"{block}.expand")), f"{block}.contract")
        h = graph.add("Add", h, inner)
    return graph.linear(graph.add("Relu", h), folded.head.weight, folded.head.bias)


def _relu(graph: Graph) -> Callable[[str], str]:
    return lambda x: graph.add("Relu", x)
