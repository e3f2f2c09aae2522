"""Where the policy versions of a log are kept."""

from __future__ import annotations

from pathlib import Path

from controller.run_log import RunLog


def bundles_of(log: RunLog, store: str | None) -> dict[str, Path]:
    """Find the bundle of each version of a log: where it was, beside another one, in a store."""
    folders = [Path(path) for path in log.bundles.values()]
    folders += [folder.parent for folder in folders]
    folders += [Path(store)] if store else [log.path.parent / "bundles"]
    places: dict[str, Path] = {}
    for version in filter(None, set(log.versions)):
        named = [folder / version for folder in folders]
        known = log.bundles.get(version)
        candidates = [*named, Path(known)] if known else named
        found = [place for place in candidates if (place / "manifest.json").is_file()]
        if found:
            places[version] = found[0]
    return places
