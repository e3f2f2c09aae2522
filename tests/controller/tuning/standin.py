"""A process of a fine-tuning that only pretends: ``python standin.py ENDPOINT WHAT``.

``replay`` counts its own looks as rows; ``finish`` makes it say so. The others sleep until they
are told to end, and say on which signal; ``learner`` ends by itself once the replay is finished.
"""

import sys
import time
from pathlib import Path

import msgspec

from controller.control import control
from controller.errors import ControllerError
from controller.process import StopFlag
from controller.wire import Control, Report
from tests.controller.scripted import SPEC, ScriptedServer


def replay(endpoint: str, stop: StopFlag) -> None:
    rows, finished = 0, False

    def reply(message, arrays):
        nonlocal rows, finished
        if not isinstance(message, Control):
            return []
        rows += 10
        finished |= message.verb == "finish"
        facts = {
            "inserted": rows,
            "updates": rows // 2,
            "version": "v1",
            "finished": finished,
            "learner": True,
        }
        episodes = {"episodes": [{"return": 1.0}, {"return": 3.0}], "next": 2}
        told = episodes if message.verb == "episodes" else facts
        if message.verb == "episodes" and message.args["since"] == "2":
            told = {"episodes": [], "next": 2}
        return [Report(message.verb, True, msgspec.json.encode(told).decode())]

    with ScriptedServer(endpoint, SPEC, reply):
        while not stop():
            time.sleep(0.02)


def learner(endpoint: str, stop: StopFlag) -> None:
    while not stop():
        try:
            if control(endpoint, "stats", timeout_s=1.0)["finished"]:
                return
        except ControllerError:
            pass
        time.sleep(0.1)


def main(endpoint: str, what: str) -> None:
    with StopFlag() as stop:
        Path(endpoint.removeprefix("ipc://")).with_name(f"{what}.ready").touch()
        if what == "replay":
            replay(endpoint, stop)
        elif what in ("learner", "gate"):
            learner(endpoint, stop)
        else:
            while not stop():
                time.sleep(0.02)
    sys.stderr.write(f"{what} left in order\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
