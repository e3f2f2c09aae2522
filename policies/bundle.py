"""Checkpoint bundles: a directory with a manifest, arrays in safetensors, and their hashes.

v0001-1a2b3c4d/
  manifest.json             what the policy is, for whom, from what; hash of every file
  weights.safetensors       the network that is served
  codec.safetensors         normalisation and limits
  golden.safetensors        observations with the actions this policy must give
  critics.safetensors       optional: the target critics, to choose by and to fine-tune from
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy

from controller.spec import Spec
from policies.codec import COLUMNS, Codec
from policies.errors import BundleError
from policies.manifest import (
    CODEC,
    CRITICS,
    FORMAT,
    GOLDEN,
    MANIFEST,
    REQUIRED,
    WEIGHTS,
    Arrays,
    DataEntry,
    Draft,
    FileEntry,
    Manifest,
    seal_of,
    sha256,
)
from policies.model import evaluations

__all__ = [
    "CRITICS",
    "Arrays",
    "Bundle",
    "DataEntry",
    "Draft",
    "Manifest",
    "describe_bundle",
    "load_bundle",
    "publish",
    "read_manifest",
    "resolve",
    "save_bundle",
    "shipped",
]

CURRENT = "current"
SHIPPED = Path(__file__).parent / "shipped"
"""Where the bundles lie that come with the package, each in a directory of its own."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: its directory.
        manifest: what it says of itself.
        weights: arrays of the served network by name.
        codec: normalisation and limits.
        golden: ``observations`` (n, D), ``seeds`` (n,), ``ticks`` (n,), ``actions`` (n, ...).
    """

    path: Path
    manifest: Manifest
    weights: Arrays
    codec: Codec
    golden: Arrays

    @property
    def version(self) -> str:
        """Version of the policy."""
        return self.manifest.version

    @property
    def spec(self) -> Spec:
        """The robot the policy was made for."""
        return self.manifest.spec

    def critics(self) -> Arrays | None:
        """Return the target critics' arrays, None where the bundle has none."""
        have = f"{CRITICS}.safetensors" in self.manifest.files
        return self.arrays(CRITICS) if have else None

    def arrays(self, name: str) -> Arrays:
        """Return the arrays of an optional file, such as ``critics``.

        Raises:
            BundleError: the bundle has no such file.
        """
        if f"{name}.safetensors" not in self.manifest.files:
            have = ", ".join(sorted(self.manifest.files))
            raise BundleError(f"{self.path}: no {name}.safetensors; the bundle has {have}")
        return _arrays(self.path, f"{name}.safetensors")


def save_bundle(
    out: Path, draft: Draft, weights: Arrays, golden: Arrays, extra: Mapping[str, Arrays]
) -> Path:
    """Write a bundle to ``out/<version>`` so that it is there whole or not at all.

    Args:
        out: directory that receives it.
        draft: what the manifest says.
        weights: arrays of the served network.
        golden: observations with their expected actions.
        extra: further files by name: ``critics``.

    Returns:
        The bundle's directory.
    """
    contents = {WEIGHTS: weights, CODEC: draft.codec.to_arrays(), GOLDEN: golden, **extra}
    blobs = {f"{name}.safetensors": _pack(arrays) for name, arrays in contents.items()}
    manifest = draft.manifest(blobs)
    blobs[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    with _whole(out / manifest.version) as scratch:
        for name, blob in blobs.items():
            _write(scratch / name, blob)
    return out / manifest.version


def load_bundle(path: Path | str) -> Bundle:
    """Read and verify a bundle, or the current bundle of a store.

    Raises:
        BundleError: not a bundle, or a manifest or file is missing, cut, changed or of an
            unknown format; the message names the file.
    """
    root = resolve(path)
    manifest = read_manifest(root)
    for name, entry in manifest.files.items():
        _verify(root / name, entry)
    contents = {name: _arrays(root, f"{name}.safetensors") for name in REQUIRED}
    missing = [name for name in COLUMNS if name not in contents[CODEC]]
    if missing:
        raise BundleError(f"{root}/codec.safetensors: no array {missing[0]}")
    return Bundle(
        path=root,
        manifest=manifest,
        weights=contents[WEIGHTS],
        codec=Codec.from_arrays(contents[CODEC], manifest.observation, manifest.spec),
        golden=contents[GOLDEN],
    )


def read_manifest(root: Path) -> Manifest:
    """Read and verify the manifest of the bundle in ``root``, not the files it names.

    Raises:
        BundleError: see :func:`load_bundle`.
    """
    file = root / MANIFEST
    try:
        blob = file.read_bytes()
        declared = msgspec.json.decode(blob).get("format")
        if declared != FORMAT:
            raise BundleError(f"{file}: format is {declared!r}, this version reads {FORMAT!r}")
        manifest = msgspec.json.decode(blob, type=Manifest)
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError) as error:
        raise BundleError(f"{file}: not a bundle manifest: {error}") from error
    if manifest.seal != seal_of(manifest) or manifest.spec_digest != manifest.spec.digest():
        raise BundleError(f"{file}: its seal does not match: the file was changed")
    absent = [name for name in REQUIRED if f"{name}.safetensors" not in manifest.files]
    if absent or any(Path(name).name != name for name in manifest.files):
        raise BundleError(f"{file}: does not list {', '.join(absent) or 'plain file names'}")
    return manifest


def describe_bundle(path: Path | str) -> dict[str, Any]:
    """Return what a verified bundle is, for people.

    Raises:
        BundleError: see :func:`load_bundle`.
    """
    bundle = load_bundle(path)
    about = bundle.manifest
    data = ", ".join(
        f"{d.role} {d.task or 'unnamed'} {d.rows} rows [{d.digest}]" for d in about.data
    )
    return {
        "bundle": str(bundle.path),
        "version": about.version,
        "parent": about.parent,
        "created": about.created,
        "algorithm": about.algorithm,
        "robot": about.spec.describe(),
        "sees": ", ".join(about.observation),
        "evaluations_per_action": evaluations(about.model, about.sampler),
        "actions_per_answer": about.horizon,
        "candidates_per_action": about.sampler.candidates,
        "weights": sum(array.size for array in bundle.weights.values()),
        "learned_from": data,
        "updates": about.training.get("steps"),
        "files": ", ".join(sorted(about.files)),
    }


def resolve(path: Path | str) -> Path:
    """Return the bundle's directory for a bundle, a store of bundles, or a shipped one's name.

    A path that exists comes before a name.

    Raises:
        BundleError: ``path`` is none of them.
    """
    root = Path(path)
    if str(path) in shipped() and not root.exists():
        root = SHIPPED / str(path)
    if (root / MANIFEST).is_file():
        return root
    current = root / CURRENT
    if (current / MANIFEST).is_file():
        return current.resolve()
    if current.is_symlink():
        raise BundleError(f"{current}: points to {os.readlink(current)}, which is not a bundle")
    if not root.exists():
        raise BundleError(
            f"{root}: no such bundle; make one with onebeat train, or take one that comes with "
            f"onebeat: {', '.join(shipped()) or 'none'}"
        )
    raise BundleError(f"{root}: neither a bundle ({MANIFEST}) nor a store of bundles ({CURRENT})")


def shipped() -> list[str]:
    """Return the names of the bundles that come with the package."""
    return sorted(entry.parent.name for entry in SHIPPED.glob(f"*/{MANIFEST}"))


def publish(bundle: Path | str, store: Path | str) -> Path:
    """Copy a bundle into ``store`` and make it the current one, atomically.

    The copy is verified before ``current`` moves: a reader of the store sees the old bundle
    or the new one, whole.

    Returns:
        The published bundle's directory.

    Raises:
        BundleError: the bundle, or its copy, is damaged.
    """
    source = load_bundle(bundle)
    target = Path(store) / source.version
    if source.path.resolve() != target.resolve():
        with _whole(target) as scratch:
            for name in (MANIFEST, *source.manifest.files):
                _write(scratch / name, (source.path / name).read_bytes())
            load_bundle(scratch)
    _repoint(Path(store) / CURRENT, source.version)
    return target


def _pack(arrays: Arrays) -> bytes:
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(contiguous)


def _arrays(root: Path, name: str) -> Arrays:
    try:
        return safetensors.numpy.load((root / name).read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(f"{root / name}: cannot be read as safetensors: {error}") from error


def _verify(file: Path, entry: FileEntry) -> None:
    try:
        blob = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}, but the manifest lists it") from error
    if len(blob) != entry.bytes:
        raise BundleError(
            f"{file}: {len(blob)} bytes, manifest says {entry.bytes}: the file was changed or cut"
        )
    if sha256(blob) != entry.sha256:
        raise BundleError(
            f"{file}: sha256 is {sha256(blob)[:12]}, manifest says {entry.sha256[:12]}: "
            "the file was changed"
        )


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Give a scratch directory that becomes ``target`` when all went well, else vanishes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        _sync(scratch)
        if target.exists():
            displaced = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            target.rename(displaced / target.name)
            scratch.rename(target)
            shutil.rmtree(displaced)
        else:
            scratch.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(file: Path, blob: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(blob)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _repoint(link: Path, version: str) -> None:
    scratch = link.with_name(f".{link.name}-{os.getpid()}")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(version)
    os.replace(scratch, link)
    _sync(link.parent)
