"""Frames into files: PNG, GIF or MP4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from controller.errors import ConfigError

MAX_BYTES = 700_000
"""Largest GIF; a longer one loses every other frame until it fits."""

ENDINGS = (".gif", ".mp4", ".png")


def save(images: list[Image.Image], path: Path, fps: float) -> None:
    """Write the last frame as a PNG, or all of them as a GIF or MP4.

    Raises:
        ConfigError: an MP4 without the package imageio-ffmpeg.
    """
    if path.suffix == ".png":
        images[-1].save(path)
    elif path.suffix == ".mp4":
        _save_mp4(images, path, fps)
    else:
        _save_gif(images, path, fps)
        while path.stat().st_size > MAX_BYTES and len(images) > 8:
            images, fps = images[::2], fps / 2
            _save_gif(images, path, fps)


def edges(size: int, aspect: float) -> tuple[int, int]:
    """Return (width, height) with the longer one ``size``, both even."""
    width, height = (size, size / aspect) if aspect >= 1 else (size * aspect, size)
    return 2 * round(width / 2), 2 * round(height / 2)


def _save_mp4(images: Sequence[Image.Image], path: Path, fps: float) -> None:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise ConfigError("MP4 needs imageio-ffmpeg: pip install 'onebeat[video]'") from error
    writer = imageio_ffmpeg.write_frames(
        str(path), images[0].size, fps=fps, macro_block_size=2, ffmpeg_log_level="error"
    )
    writer.send(None)
    for image in images:
        writer.send(np.ascontiguousarray(image))
    writer.close()


def _save_gif(images: list[Image.Image], path: Path, fps: float) -> None:
    # One palette for all frames and no dither: only what changes takes room.
    middle = images[len(images) // 2]
    both = Image.new("RGB", (middle.width * 2, middle.height))
    both.paste(images[0], (0, 0))
    both.paste(middle, (middle.width, 0))
    palette = both.quantize(128, method=Image.Quantize.MEDIANCUT)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    # GIF counts hundredths of a second, and viewers slow down what is under two.
    duration_ms = max(20, round(100 / fps) * 10)
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=duration_ms, loop=0, optimize=False
    )
