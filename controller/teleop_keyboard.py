"""Taking over by keyboard, in a terminal of its own."""

from __future__ import annotations

import codecs
import os
import re
import select
import sys
import termios
import tty
from collections.abc import Iterator
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.clock import MonotonicClock
from controller.errors import ConfigError
from controller.keys import client_keys
from controller.spec import ArraySpec
from controller.teleop_client import Seen, TeleopClient
from controller.teleop_settings import TeleopConfig
from controller.types import Array

PAIRS = ("ad", "sw", "fr", "gt", "hy", "ju", "ki", "lo")
ARROWS = {"left": "a", "right": "d", "down": "s", "up": "w"}
SHOW_EVERY_NS = 50_000_000
_ESCAPES = {"A": "up", "B": "down", "C": "right", "D": "left"}
_KEY = re.compile(r"\x1b(?:\[|O)(?P<arrow>[A-D])|\x1b\[[0-9;]*[~A-Za-z]|(?P<plain>[^\x1b])")


class Hands:
    """What the keys have set, as an action.

    Args:
        action: the robot's action.
        config: which keys move what, and how far.

    Attributes:
        moved: names of the elements that keys move, in the order of the pairs.

    Raises:
        ConfigError: an element is not in the action, or there are more than pairs of keys.
    """

    def __init__(self, action: ArraySpec, config: TeleopConfig) -> None:
        self._spec = action
        low, high = (bound.reshape(-1) for bound in action.bounds())
        span = np.where(np.isfinite(high - low), high - low, 1.0)
        self._low, self._high, self._step = low, high, config.step * span
        self._spring_ns = None if config.spring_s is None else round(config.spring_s * 1e9)
        self._rest = action.resting().reshape(-1).astype(np.float64)
        self._value = self._rest.copy()
        self._pressed_ns = np.zeros(action.size, np.int64)
        wanted = range(action.size)[: len(PAIRS)] if config.elements is None else config.elements
        if len(wanted) > len(PAIRS):
            raise ConfigError(f"elements: {len(wanted)} given, at most {len(PAIRS)} have keys")
        indices = [_index(action, element) for element in wanted]
        names = action.elements or tuple(f"{action.name}[{i}]" for i in range(action.size))
        self.moved = [names[index] for index in indices]
        self._index = indices
        self._keys = {
            key: (index, sign)
            for index, pair in zip(indices, PAIRS, strict=False)
            for key, sign in zip(pair, (-1, 1), strict=True)
        }

    def press(self, key: str, now_ns: int) -> None:
        """Move what ``key`` moves; x lets go of everything."""
        if key == "x":
            self._value[:] = self._rest
        key = ARROWS.get(key, key)
        if key in self._keys:
            index, sign = self._keys[key]
            moved = self._value[index] + sign * self._step[index]
            self._value[index] = np.clip(moved, self._low[index], self._high[index])
            self._pressed_ns[index] = now_ns

    def follow(self, executed: Array) -> None:
        """Begin where the robot is, where keys set places."""
        if self._spring_ns is None:
            self._value[:] = executed.reshape(-1)

    def action(self, now_ns: int) -> Array:
        """Return the action at a time."""
        if self._spring_ns is not None:
            loose = now_ns - self._pressed_ns > self._spring_ns
            self._value[loose] = self._rest[loose]
        whole = np.rint(self._value) if self._spec.dtype == "uint8" else self._value
        return whole.astype(self._spec.dtype).reshape(self._spec.shape)

    def describe(self) -> str:
        """Return the elements that keys move, with their values."""
        values: NDArray[np.float64] = self._value[self._index]
        return "  ".join(f"{n} {v:+.3g}" for n, v in zip(self.moved, values, strict=True))


class Terminal:
    """Keys without Enter, and one line that is written over; a context manager.

    Raises:
        ConfigError: there is no terminal.
    """

    def __init__(self) -> None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ConfigError("teleop reads keys: it needs a terminal of its own")
        self._fd = sys.stdin.fileno()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._before = termios.tcgetattr(self._fd)

    def __enter__(self) -> Terminal:
        tty.setcbreak(self._fd)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        self.say("")

    def keys(self, timeout_s: float) -> Iterator[str]:
        """Yield the keys pressed, waiting for the first one for up to ``timeout_s``."""
        if select.select([self._fd], [], [], max(0.0, timeout_s))[0]:
            typed = os.read(self._fd, 256)
            yield from parse_keys(self._decoder.decode(typed)) if typed else ("q",)

    def say(self, line: str) -> None:
        """Write a line that stays."""
        sys.stdout.write(f"\r\x1b[K{line}\n")
        sys.stdout.flush()

    def show(self, line: str) -> None:
        """Write a line over the last one shown, cut to the width of the terminal."""
        width = os.get_terminal_size(sys.stdout.fileno()).columns or 80
        sys.stdout.write(f"\r\x1b[K{line[: width - 1]}")
        sys.stdout.flush()


def parse_keys(text: str) -> Iterator[str]:
    """Yield the keys behind what a terminal sent: letters in lower case, and arrows by name."""
    for match in _KEY.finditer(text):
        if match["arrow"]:
            yield _ESCAPES[match["arrow"]]
        elif match["plain"]:
            yield match["plain"].lower()


class Driver:
    """One person at the keyboard.

    Args:
        client: connected to the loop.
        hands: what the keys set.
        name: who it is.
    """

    def __init__(self, client: TeleopClient, hands: Hands, name: str) -> None:
        self._client, self._hands, self._name = client, hands, name
        self._seen: Seen | None = None

    def press(self, key: str, now_ns: int) -> bool:
        """Do what a key says; return whether to go on."""
        if key == " " and self._client.engaged:
            self._client.release()
        elif key == " ":
            self._client.engage()
            if self._seen:
                self._hands.follow(self._seen.executed)
        else:
            self._hands.press(key, now_ns)
        return key != "q"

    def beat(self, now_ns: int) -> str:
        """Send the command of the moment, take the answer, and return a line about both."""
        drove = self._seen is not None and self._seen.driving
        self._client.send(self._hands.action(now_ns))
        seen = self._client.look()
        self._seen = seen or self._seen
        if drove and seen and not seen.driving:
            # The loop has handed back to the policy, for silence: to drive is to be wanted anew.
            self._client.release()
        return f"{self._state():<28} {self._hands.describe()}"

    def _state(self) -> str:
        seen = self._seen
        if seen is None:
            return "no answer from the loop"
        who = f"{seen.driver} drives" if seen.driver else "the policy acts"
        if self._client.engaged:
            who = "YOU DRIVE" if seen.driving else f"waiting: {who}"
        return f"{who} [{seen.mode.name} {seen.rung.name} {seen.tick}]"


def drive(config: TeleopConfig) -> None:
    """Let a person drive until they leave with q.

    Raises:
        ConfigError: there is no terminal, or an element is not in the action.
        PeerTimeout: no loop answered in time.
    """
    name = config.name or os.environ.get("USER") or "somebody"
    clock = MonotonicClock()
    terminal = Terminal()
    client = TeleopClient(config.endpoint, name, clock, client_keys(config.keys))
    try:
        spec = client.connect(config.connect_timeout_s)
        hands = Hands(spec.action, config)
        with terminal:
            terminal.say(spec.describe())
            for pair, element in zip(PAIRS, hands.moved, strict=False):
                terminal.say(f"  {pair[0]} {pair[1]}  {element} down, up")
            terminal.say("  space  take over, hand back    x  let go    q  leave")
            _attend(terminal, Driver(client, hands, name), clock, 1.0 / config.rate_hz)
    finally:
        client.close()


def _attend(terminal: Terminal, driver: Driver, clock: MonotonicClock, period_s: float) -> None:
    due_ns, shown_ns = clock.now_ns(), 0
    while True:
        for key in terminal.keys((due_ns - clock.now_ns()) / 1e9):
            if not driver.press(key, clock.now_ns()):
                return
        now_ns = clock.now_ns()
        if now_ns < due_ns:
            continue
        line, due_ns = driver.beat(now_ns), max(due_ns + round(period_s * 1e9), now_ns)
        if now_ns - shown_ns >= SHOW_EVERY_NS:
            terminal.show(line)
            shown_ns = now_ns


def _index(action: ArraySpec, element: str | int) -> int:
    if isinstance(element, int) and 0 <= element < action.size:
        return element
    if isinstance(element, str) and element in action.elements:
        return action.elements.index(element)
    valid = action.elements or [str(index) for index in range(action.size)]
    raise ConfigError(
        f"elements: {element!r} is no element of {action.name}; {nearest(str(element), valid)}"
    )
