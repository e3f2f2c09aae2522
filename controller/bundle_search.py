"""Where the policy versions of a log are kept."""

from __future__ import annotations

from pathlib import Path

from controller.run_log import RunLog


def bundles_of(log: RunLog, store: str | None) -> dict[str, Path]:
    """Find the bundle of each policy version of a log.

    Looks in ``store``, where the log says the bundle was, beside that, and in ``bundles``
    beside the log, in this order.

    Args:
        log: the run.
        store: store of bundles that a person named.
    """
    known = [Path(path) for path in log.bundles.values()]
    stores = [*([Path(store)] if store else []), *known, *(path.parent for path in known)]
    stores.append(log.path.parent / "bundles")
    places: dict[str, Path] = {}
    for version in filter(None, set(log.versions)):
        candidates = [folder / version for folder in stores]
        candidates += [Path(log.bundles[version])] if version in log.bundles else []
        found = [place for place in candidates if (place / "manifest.json").is_file()]
        if found:
            places[version] = found[0]
    return places
