"""What a bundle says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from controller.spec import Spec
from controller.types import Array
from controller.wire import Horizon
from policies.codec import Codec
from policies.model import CriticSettings, Model, SamplerSettings

FORMAT = "onebeat.bundle/2"
MANIFEST = "manifest.json"
WEIGHTS, CODEC, GOLDEN = "weights", "codec", "golden"
CRITICS = "critics"
REQUIRED = (WEIGHTS, CODEC, GOLDEN)

Arrays = dict[str, Array]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of the bundle must be."""

    sha256: str
    bytes: int


class DataEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Data the policy learned from."""

    role: Literal["offline", "log"]
    task: str
    rows: int
    digest: str


class Manifest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """Everything about a policy but its arrays. Every field is required but ``horizon``.

    Attributes:
        format: ``onebeat.bundle/2``.
        version: ``v<generation>-<8 hex digits of what decides its actions>``.
        generation: 1 for a policy trained from data, parent's plus 1 for a fine-tuned one.
        parent: version it was fine-tuned from.
        created: ISO 8601 time.
        algorithm: how it was learned.
        spec: the robot it was made for.
        spec_digest: digest of ``spec``.
        model: what the policy is made of.
        sampler: how an action is drawn.
        critic: shape of the value networks in ``critics.safetensors``; null without them.
        observation: names of the observation arrays the policy sees.
        horizon: H, rows of action in an answer: the network gives H times the elements of one
            action, row by row. Not written where it is 1.
        data: what it learned from.
        training: settings and outcome of the learning.
        files: name to hash and size.
        seal: sha256 of the manifest itself with an empty seal.
    """

    format: str
    version: str
    generation: int
    parent: str | None
    created: str
    algorithm: str
    spec: Spec
    spec_digest: str
    model: Model
    sampler: SamplerSettings
    critic: CriticSettings | None
    observation: tuple[str, ...]
    horizon: Horizon = 1
    data: tuple[DataEntry, ...]
    training: dict[str, Any]
    files: dict[str, FileEntry]
    seal: str


@dataclass(frozen=True)
class Draft:
    """What a bundle says of a policy before it has a version.

    Attributes:
        algorithm: how it was learned.
        spec: the robot it was made for.
        model: what the policy is made of.
        sampler: how an action is drawn.
        codec: normalisation and limits.
        data: what it learned from.
        training: settings and outcome of the learning; JSON values.
        critic: shape of the value networks that come with it.
        parent: manifest of the policy it was fine-tuned from.
        horizon: H, rows of action in an answer.
    """

    algorithm: str
    spec: Spec
    model: Model
    sampler: SamplerSettings
    codec: Codec
    data: tuple[DataEntry, ...]
    training: dict[str, Any]
    critic: CriticSettings | None = None
    parent: Manifest | None = None
    horizon: int = 1

    def manifest(self, blobs: Mapping[str, bytes]) -> Manifest:
        """Return the sealed manifest of this policy with these files."""
        files = {name: FileEntry(sha256(blob), len(blob)) for name, blob in blobs.items()}
        generation = self.parent.generation + 1 if self.parent else 1
        acts = (self.spec, self.model, self.sampler, self.critic, self.codec.arrays)
        hashes = [files[f"{name}.safetensors"].sha256 for name in (WEIGHTS, CODEC)]
        identity = sha256(msgspec.json.encode((acts, hashes)))
        manifest = Manifest(
            format=FORMAT,
            version=f"v{generation:04d}-{identity[:8]}",
            generation=generation,
            parent=self.parent.version if self.parent else None,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            algorithm=self.algorithm,
            spec=self.spec,
            spec_digest=self.spec.digest(),
            model=self.model,
            sampler=self.sampler,
            critic=self.critic,
            observation=self.codec.arrays,
            horizon=self.horizon,
            data=self.data,
            training=self.training,
            files=files,
            seal="",
        )
        return msgspec.structs.replace(manifest, seal=seal_of(manifest))


def sha256(blob: bytes) -> str:
    """Return the hash of ``blob`` in hex digits."""
    return hashlib.sha256(blob).hexdigest()


def seal_of(manifest: Manifest) -> str:
    """Return the hash of a manifest with an empty seal."""
    return sha256(msgspec.json.encode(msgspec.structs.replace(manifest, seal="")))
