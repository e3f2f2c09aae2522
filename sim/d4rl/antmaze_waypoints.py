"""D4RL's route planner for the ant: the next cell on a shortest way, and a point in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.d4rl.antmaze import Cell, Maze, cell_at, centre
from sim.waypoints import route_table

Floats = NDArray[np.float64]


class AntWaypoints:
    """Directions through a maze.

    Args:
        maze: the maze.
    """

    def __init__(self, maze: Maze) -> None:
        self._free = maze.free
        self._next = {goal: route_table(maze.walls, goal) for goal in self._free}

    def waypoint(self, xy: Floats, goal: Floats, random: np.random.Generator) -> Floats:
        """Return where to walk from ``xy`` (2,) to come to ``goal`` (2,), m.

        The centre of the next cell and U(0, 1) m beyond it on both axes, drawn anew at every
        call; the goal itself where the next cell is the goal's.
        """
        last = self._cell(goal)
        following = self._next[last].get(self._cell(xy), last)
        if following == last:
            return goal
        return centre(following) + random.uniform(0.0, 1.0, 2)

    def direction(self, xy: Floats, goal: Floats, random: np.random.Generator) -> Floats:
        """Return the unit vector (2,) from ``xy`` to the waypoint."""
        way = self.waypoint(xy, goal, random) - xy
        return way / max(float(np.linalg.norm(way)), 1e-9)

    def _cell(self, xy: Floats) -> Cell:
        """Return the cell of a position, the nearest free one where D4RL's is a wall."""
        cell = cell_at(float(xy[0]), float(xy[1]))
        if cell in self._free:
            return cell
        return min(self._free, key=lambda free: float(np.sum((centre(free) - xy) ** 2)))
