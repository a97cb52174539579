"""Pictures side by side, and one after the other."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image


def grid(rows: Sequence[np.ndarray], scale: int = 1, gap: int = 2) -> np.ndarray:
    """Rows of uint8 pictures [b h w c] on white -> one uint8 picture [H W 3].

    Rows may differ in resolution: each is enlarged to the largest, then by `scale`.
    """
    height = max(row.shape[1] for row in rows) * scale
    width = max(row.shape[2] for row in rows) * scale
    columns = max(len(row) for row in rows)
    canvas = np.full(
        (len(rows) * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8
    )
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = gap + i * (height + gap), gap + j * (width + gap)
            rgb = np.broadcast_to(picture, (*picture.shape[:2], 3))
            enlarged = Image.fromarray(rgb).resize((width, height), Image.Resampling.NEAREST)
            canvas[top : top + height, left : left + width] = np.asarray(enlarged)
    return canvas


def save_gif(path: str | os.PathLike, frames: Sequence[np.ndarray], milliseconds: int = 80) -> None:
    """Writes frames, uint8 [H W 3] of one shape, as a GIF that goes round for ever."""
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
