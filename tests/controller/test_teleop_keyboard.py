"""The keys of ``onebeat teleop``: what they set, and the program in a terminal of its own."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from controller.clock import MonotonicClock
from controller.errors import ConfigError
from controller.spec import ArraySpec
from controller.teleop import Standing
from controller.teleop_client import Seen
from controller.teleop_keyboard import Driver, Hands, parse_keys
from controller.teleop_server import TeleopServer
from controller.teleop_settings import TeleopConfig
from controller.testing import example_spec
from controller.types import Mode, Rung

MS = 1_000_000
ARM = ArraySpec(
    "arm", (3,), "float32", low=(-2.0, 1.0, None), high=(2.0, 5.0, None), elements=("a", "b", "c")
)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", [0.0, 1.0, 0.0]),
        ("d", [0.4, 1.0, 0.0]),
        ("dda", [0.4, 1.0, 0.0]),
        ("aaaaaaaa", [-2.0, 1.0, 0.0]),
        ("w", [0.0, 1.4, 0.0]),
        ("s", [0.0, 1.0, 0.0]),
        ("rrf", [0.0, 1.0, 0.1]),
        ("dwrx", [0.0, 1.0, 0.0]),
        ("z7", [0.0, 1.0, 0.0]),
    ],
)
def test_what_keys_set(keys, expected):
    hands = Hands(ARM, TeleopConfig())
    for key in keys:
        hands.press(key, 0)
    action = hands.action(0)
    assert action.dtype == np.float32
    assert action == pytest.approx(expected)


def test_arrows_are_the_first_two_pairs():
    hands = Hands(ARM, TeleopConfig())
    for key in ("right", "up", "up", "down"):
        hands.press(key, 0)
    assert hands.action(0) == pytest.approx([0.4, 1.4, 0.0])


def test_an_element_that_is_let_go_springs_back():
    hands = Hands(ARM, TeleopConfig(spring_s=0.5))
    hands.press("d", 0)
    hands.press("w", 300 * MS)
    assert hands.action(500 * MS) == pytest.approx([0.4, 1.4, 0.0])
    assert hands.action(501 * MS) == pytest.approx([0.0, 1.4, 0.0])
    assert hands.action(900 * MS) == pytest.approx([0.0, 1.0, 0.0])


def test_places_stay_and_begin_where_the_robot_is():
    hands = Hands(ARM, TeleopConfig(spring_s=None))
    hands.follow(np.array([1.0, 3.0, -7.0], np.float32))
    hands.press("d", 0)
    assert hands.action(10**12) == pytest.approx([1.4, 3.0, -7.0])
    springy = Hands(ARM, TeleopConfig())
    springy.follow(np.array([1.0, 3.0, -7.0], np.float32))
    assert springy.action(0) == pytest.approx([0.0, 1.0, 0.0])


def test_chosen_elements():
    hands = Hands(ARM, TeleopConfig(elements=("c", 0)))
    assert hands.moved == ["c", "a"]
    hands.press("d", 0)
    hands.press("w", 0)
    assert hands.action(0) == pytest.approx([0.4, 1.0, 0.1])
    with pytest.raises(ConfigError, match="'d' is no element of arm"):
        Hands(ARM, TeleopConfig(elements=("d",)))
    with pytest.raises(ConfigError, match="9 given, at most 8 have keys"):
        Hands(ARM, TeleopConfig(elements=(0,) * 9))


def test_more_elements_than_keys_and_whole_numbers():
    wide = ArraySpec("wide", (12,), "uint8", low=(0,) * 12, high=(255,) * 12)
    hands = Hands(wide, TeleopConfig())
    assert len(hands.moved) == 8
    hands.press("d", 0)
    assert hands.action(0).tolist() == [26, *[0] * 11]  # A tenth of 255, rounded to even.


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ("aW ", ["a", "w", " "]),
        ("\x1b[A\x1b[B\x1bOC\x1b[D", ["up", "down", "right", "left"]),
        ("\x1b[3~q\x1b[1;5C", ["q"]),
        ("", []),
    ],
)
def test_keys_of_a_terminal(typed, keys):
    assert list(parse_keys(typed)) == keys


class Line:
    """A client whose answers a test gives."""

    def __init__(self):
        self.engaged, self.sent, self.answer = False, [], None

    def engage(self):
        self.engaged = True

    def release(self):
        self.engaged = False

    def send(self, action):
        self.sent.append((self.engaged, action.tolist()))

    def look(self):
        return self.answer

    def loop_does(self, rung, driving, driver=""):
        place = np.array([1.0, 2.0, 0.0], np.float32)
        self.answer = Seen(5, Mode.RUN, rung, place, driving, driver)


def test_space_takes_over_and_hands_back():
    line = Line()
    driver = Driver(line, Hands(ARM, TeleopConfig()), "ann")
    assert driver.beat(0).startswith("no answer from the loop")
    line.loop_does(Rung.FRESH, False)
    assert driver.beat(0).startswith("the policy acts [RUN FRESH 5]")
    assert driver.press(" ", 0)
    assert driver.beat(0).startswith("waiting: the policy acts")
    line.loop_does(Rung.HUMAN, True, "ann")
    assert driver.beat(0).startswith("YOU DRIVE [RUN HUMAN 5]")
    assert driver.press("d", 0)
    driver.beat(0)
    assert line.sent[-1] == (True, pytest.approx([0.4, 1.0, 0.0]))
    driver.press(" ", 0)
    line.loop_does(Rung.HUMAN, False, "bob")
    assert driver.beat(0).startswith("bob drives")
    assert not driver.press("q", 0)


def test_whom_the_loop_has_unseated_does_not_drive_on():
    line = Line()
    driver = Driver(line, Hands(ARM, TeleopConfig()), "ann")
    driver.press(" ", 0)
    line.loop_does(Rung.HUMAN, True, "ann")
    driver.beat(0)
    line.loop_does(Rung.FRESH, False)
    driver.beat(0)
    assert not line.engaged


def test_places_are_followed_on_taking_over():
    line = Line()
    driver = Driver(line, Hands(ARM, TeleopConfig(spring_s=None)), "ann")
    line.loop_does(Rung.FRESH, False)
    driver.beat(0)
    driver.press(" ", 0)
    driver.beat(0)
    assert line.sent[-1] == (True, [1.0, 2.0, 0.0])


def test_the_program_in_a_terminal(tmp_path):
    """Typing into a pseudo-terminal drives, hands back and leaves."""
    endpoint = f"ipc://{tmp_path}/teleop"
    door = TeleopServer(endpoint, example_spec(), MonotonicClock())
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "controller.cli", "teleop", endpoint, "name=ann", "spring_s=60"]
    program = subprocess.Popen(words, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    try:
        os.set_blocking(leader, False)
        heard, shown = [], b""

        def read():
            nonlocal shown
            with contextlib.suppress(BlockingIOError, OSError):
                shown += os.read(leader, 65536)

        def until(wanted):
            begin = time.monotonic()
            while time.monotonic() - begin < 30:
                for command in door.poll():
                    heard.append(command)
                    driver = command if command.engagement else None
                    rung = Rung.HUMAN if driver else Rung.FRESH
                    door.show(Standing(1, Mode.RUN, rung, command.action, driver))
                    if wanted(command):
                        return
                read()
                time.sleep(0.005)
            raise AssertionError(f"not seen among {len(heard)} commands")

        until(lambda c: c.engagement == 0 and c.who == "ann")
        os.write(leader, b" \x1b[C")
        until(lambda c: c.engagement == 1 and c.action.tolist() == pytest.approx([0.2, 0.0]))
        begin = time.monotonic()
        while b"YOU DRIVE [RUN HUMAN 1]" not in shown and time.monotonic() - begin < 30:
            until(lambda c: c.engagement == 1)
        os.write(leader, b"w ")
        until(lambda c: c.engagement == 0 and c.action.tolist() == pytest.approx([0.2, 0.2]))
        os.write(leader, b" ")
        until(lambda c: c.engagement == 2)
        os.write(leader, b"q")
        until(lambda c: c.engagement == 0)
        assert program.wait(20) == 0
        assert b"take over, hand back" in shown
        assert b"YOU DRIVE [RUN HUMAN 1]" in shown
    finally:
        if program.poll() is None:
            program.send_signal(signal.SIGKILL)
            program.wait()
        os.close(leader)
        door.close()


def test_without_a_terminal_it_says_so():
    words = [sys.executable, "-m", "controller.cli", "teleop", "ipc:///tmp/nobody-there"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "onebeat teleop: teleop reads keys: it needs a terminal of its own\n"
