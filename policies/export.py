"""A bundle as one ONNX file, from observation to action in the robot's own units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from controller.acting import AS_BUNDLED, ActSettings
from controller.errors import ConfigError
from policies.bundle import Bundle, load_bundle
from policies.engine_onnx import Graph, Shape, add_sampler
from policies.errors import BundleError
from policies.make_sampler import make_sampler
from policies.manifest import Manifest


class ExportPolicyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Write a policy as an ONNX file.

    Attributes:
        bundle: a bundle, or a store of bundles whose current one is meant.
        out: the file to write.
        act: how an action is drawn, where that is not left to the bundle. The choice among
            candidates is not part of the file.
    """

    bundle: str = "runs/demo/bundles"
    out: str = "policy.onnx"
    act: ActSettings = AS_BUNDLED


def export(config: ExportPolicyConfig) -> dict[str, Any]:
    """Write the file; return what it is.

    Its inputs are ``observation`` (N, D), the arrays of an observation end to end in the robot's
    units, and ``noise`` (K, N, H A), standard normal; its output is ``action`` (N, A) within the
    robot's limits, or (N, H, A) of a policy that answers with H > 1 rows. Everything is float32.
    A policy that draws nothing has no ``noise``.

    Raises:
        BundleError: the bundle is damaged, cannot act as asked, or chooses among candidates.
        ConfigError: the file cannot be written.
    """
    import onnx

    bundle = load_bundle(config.bundle)
    about = bundle.manifest
    sampler = about.sampler.changed(config.act)
    if sampler.candidates > 1:
        raise BundleError(
            f"{bundle.path}: chooses among {sampler.candidates} candidates, which a file does "
            "not hold: act.candidates=1 exports the draw alone"
        )
    steps = make_sampler(about, bundle.weights, act=config.act).steps
    graph = Graph()
    encoded = add_sampler(graph, about.model, bundle.weights, sampler, _encoder(graph, bundle))
    _add_decoder(graph, bundle, encoded)
    size, horizon = bundle.codec.action_size, about.horizon
    width = sum(array.size for array in about.spec.observation)
    given: dict[str, Shape] = {"observation": ("N", width)}
    if any("noise" in node.input for node in graph.nodes):
        given["noise"] = (steps, "N", horizon * size)
    rows = (horizon,) if horizon > 1 else ()
    made = graph.model(given, {"action": ("N", *rows, size)})
    for name, value in _facts(about).items():
        entry = made.metadata_props.add()
        entry.key, entry.value = name, value
    out = Path(config.out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(made, str(out))
    except OSError as error:
        raise ConfigError(f"out={out}: {error.strerror or error}, expected a file") from error
    return {"file": str(out), "bytes": out.stat().st_size, "steps": steps, **_facts(about)}


def _encoder(graph: Graph, bundle: Bundle) -> str:
    """Add the choice of columns and the normalisation; return the encoded observation."""
    codec = bundle.codec
    seen = graph.add("Gather", "observation", graph.constant(codec.columns, np.int64), axis=1)
    centred = graph.add("Sub", seen, graph.constant(codec.mean))
    return graph.add("Div", centred, graph.constant(codec.scale))


def _add_decoder(graph: Graph, bundle: Bundle, encoded: str) -> None:
    """Add the way back to the robot's units, within its limits."""
    codec, horizon = bundle.codec, bundle.manifest.horizon
    clipped = graph.clip(encoded)
    if horizon > 1:
        shape = graph.constant((-1, horizon, codec.action_size), np.int64)
        clipped = graph.add("Reshape", clipped, shape)
    scaled = graph.add("Mul", clipped, graph.constant(codec.span))
    action = graph.add("Add", scaled, graph.constant(codec.centre))
    graph.clip(action, codec.low, codec.high, name="action")


def _facts(about: Manifest) -> dict[str, str]:
    return {
        "version": about.version,
        "algorithm": about.algorithm,
        "kind": str(about.model.__struct_config__.tag),
        "task": about.spec.task,
        "spec_digest": about.spec_digest,
    }
