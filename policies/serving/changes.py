"""Changing versions between requests: swap, trial, promotion, and the way back from each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from controller.errors import ControllerError
from controller.interfaces import Clock
from policies.serving.canary import Canary, Terms
from policies.serving.schedule import Schedule
from policies.serving.service import Service, release
from policies.serving.swap import Candidate, Load

logger = logging.getLogger(__name__)

Tell = Callable[[bytes, str, bool, dict[str, Any]], None]
"""Reports to who asked: identity, verb, whether it was done, detail."""


class CannotChange(ControllerError, RuntimeError):
    """A change that does not fit what is in service; the message says why."""


class _Coming(NamedTuple):
    """A version that is being brought up, for whom and what for."""

    identity: bytes
    service: Service
    candidate: Candidate
    terms: Terms | None

    @property
    def verb(self) -> str:
        return "canary" if self.terms else "swap"


class Changes:
    """Brings up one version at a time beside those that answer, and puts it in their place.

    Everything but the loading happens between two requests.

    Args:
        schedule: what waits for a version that goes is answered by the one that stays.
        load: makes a policy from the path of a bundle; called in a thread.
        clock: time.
        tell: reports to who asked.
    """

    def __init__(self, schedule: Schedule, load: Load, clock: Clock, tell: Tell) -> None:
        self._schedule, self._load, self._clock, self._tell = schedule, load, clock, tell
        self._coming: _Coming | None = None

    @property
    def loading(self) -> bool:
        """Whether a version is being brought up."""
        return self._coming is not None

    def begin(
        self, identity: bytes, service: Service, bundle: str, terms: Terms | None = None
    ) -> None:
        """Begin a swap, or with ``terms`` a trial; :meth:`finish` reports to ``identity``.

        Raises:
            CannotChange: another version is on its way, or on trial.
        """
        if self._coming is not None:
            raise CannotChange(f"still loading {self._coming.candidate.path}")
        if service.canary is not None:
            version = service.canary.policy.version
            raise CannotChange(f"{version} is on trial: promote or abort it first")
        candidate = Candidate(self._load, bundle, service.post, self._clock)
        self._coming = _Coming(identity, service, candidate, terms)

    def finish(self) -> None:
        """Put what is ready in service, or say why it was refused."""
        if self._coming is None or not self._coming.candidate.done:
            return
        coming, self._coming = self._coming, None
        service, candidate = coming.service, coming.candidate
        if candidate.policy is None:
            self._refused(coming, f"{candidate.reason}; {service.version} keeps serving")
            return
        with candidate.steps("swap"):
            if coming.terms is not None:
                names = {"before": service.version, "after": service.version}
                names["canary"] = candidate.policy.version[:200]
                canary = Canary(candidate.policy, coming.terms, service.spec.action, self._clock)
                service.put_on_trial(canary)
            else:
                names = service.replace(candidate.policy)
        detail = {**names, "load_ms": candidate.load_ms, "steps": candidate.steps.done}
        self._changed(service, coming.verb, detail)
        self._tell(coming.identity, coming.verb, True, detail)

    def roll_back(self, service: Service) -> dict[str, Any]:
        """Take the version on trial away, or else go back to the version before.

        Raises:
            CannotChange: there is none.
        """
        if service.canary is not None:
            return self.abort(service, "rolled back")
        if service.previous is None:
            raise CannotChange(f"there is no policy before {service.version}")
        detail: dict[str, Any] = dict(service.replace(service.previous))
        self._changed(service, "rollback", detail)
        return detail

    def promote(self, service: Service) -> dict[str, Any]:
        """Have the version on trial answer everything.

        Raises:
            CannotChange: none is on trial.
        """
        policy = self._trial_of(service).policy
        self._end_trial(service, "promoted")
        detail: dict[str, Any] = {**service.replace(policy), "canary": service.trial}
        self._changed(service, "promote", detail)
        return detail

    def abort(self, service: Service, verdict: str = "aborted") -> dict[str, Any]:
        """End a trial; the old version answers everything.

        Raises:
            CannotChange: none is on trial.
        """
        policy = self._trial_of(service).policy
        self._end_trial(service, verdict)
        release(policy)
        detail = {"before": service.version, "after": service.version, "canary": service.trial}
        self._changed(service, "abort", detail)
        return detail

    def judge(self, service: Service) -> None:
        """End a trial that failed, and one that was passed where its terms say so."""
        canary = service.canary
        if canary is None:
            return
        if canary.verdict == "failed":
            logger.warning("%s is taken back: %s", canary.policy.version, canary.fault)
            self.abort(service, "failed")
        elif canary.verdict == "passed" and canary.terms.then == "promote":
            self.promote(service)

    def refuse(self, identity: bytes, verb: str, reason: str, **more: object) -> None:
        """Report that something was not done."""
        logger.warning("%s refused: %s", verb, reason)
        self._tell(identity, verb, False, {"reason": reason, **more})

    def _refused(self, coming: _Coming, reason: str) -> None:
        steps = coming.candidate.steps.done
        coming.service.counts.changes["refused"] += 1
        coming.service.change = {"verb": coming.verb, "reason": reason, "steps": steps}
        self.refuse(coming.identity, coming.verb, reason, steps=steps)

    def _changed(self, service: Service, verb: str, detail: dict[str, Any]) -> None:
        service.counts.changes[verb] += 1
        service.change = {"verb": verb, **detail}
        logger.info("%s: %s answers, %s before", verb, detail["after"], detail["before"])

    def _trial_of(self, service: Service) -> Canary:
        if service.canary is None:
            raise CannotChange(f"no version is on trial beside {service.version}")
        return service.canary

    def _end_trial(self, service: Service, verdict: str) -> None:
        self._schedule.move(service.end_trial(verdict), service.lane)
