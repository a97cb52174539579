"""Arithmetic on codes z: between two of them, section by section, along a direction. NumPy alone.

A code is [z]; its sections lie one after the other, with the sizes that `section_sizes` gives, from
the finest layers of the denoiser (section 0) to its middle (the last).
"""

from collections.abc import Iterable, Sequence

import numpy as np


def interpolate(a, b, num_steps: int, kind: str = "linear") -> np.ndarray:
    """Codes [s z] at equal steps from a [z] to b [z], both of them included.

    Args:
      num_steps: s, at least 2.
      kind: "linear"; or "spherical": along the great circle between the directions of a and b, with
        lengths that go linearly from one to the other (Shoemake 1985, for the directions).

    Raises:
      ValueError: a and b are not finite codes of one size, an unknown kind, fewer than 2 steps; or,
        on the sphere, a code of zeros, or two that point in opposite directions.
    """
    a, b = _pair(a, b)
    if num_steps < 2:
        raise ValueError(f"num_steps must be at least 2, but is {num_steps}")
    share = np.linspace(0, 1, num_steps)[:, None]
    if kind == "linear":
        return ((1 - share) * a[None] + share * b[None]).astype(np.float32)
    if kind != "spherical":
        raise ValueError(f"kind is {kind!r}; allowed: linear, spherical")
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if min(lengths) == 0:
        raise ValueError("a code of zeros has no direction: interpolate linearly")
    a, b = a / lengths[0], b / lengths[1]
    angle = np.arccos(np.clip(a @ b, -1, 1))
    if angle > np.pi - 1e-4:
        raise ValueError("the two codes point in opposite directions: no great circle is shortest")
    if angle < 1e-4:
        directions = (1 - share) * a[None] + share * b[None]
    else:
        weights = np.sin((1 - share) * angle), np.sin(share * angle)
        directions = (weights[0] * a[None] + weights[1] * b[None]) / np.sin(angle)
    length = (1 - share) * lengths[0] + share * lengths[1]
    return (length * directions).astype(np.float32)


def mix(a, b, sections: Iterable[int], section_sizes: Sequence[int]) -> np.ndarray:
    """A code [z] with these sections of a [z], and all others of b [z].

    Raises:
      ValueError: a and b are not finite codes of the size that the sections add up to, or there is
        no such section.
    """
    a, b = _pair(a, b)
    chosen = columns_of(sections, section_sizes, len(a))
    return np.where(chosen, a, b).astype(np.float32)


def cut_matrix(a, b, section_sizes: Sequence[int]) -> np.ndarray:
    """All mixes with a run of sections from a: codes [l+1 l+1 z].

    Entry (i, j) has sections i to j - 1 of a and the others of b: the diagonal is b, (0, l) is a,
    the row (0, j) takes ever more from the fine end, the column (i, l) from the coarse one. Below
    the diagonal there is no such run, and the roles change: (j, i) has sections i to j - 1 of b and
    the others of a.
    """
    a, b = _pair(a, b)
    count = len(section_sizes)
    codes = np.empty((count + 1, count + 1, len(a)), np.float32)
    for i in range(count + 1):
        for j in range(i, count + 1):
            codes[i, j] = mix(a, b, range(i, j), section_sizes)
            if i < j:
                codes[j, i] = mix(b, a, range(i, j), section_sizes)
    return codes


def traverse(z, direction, amounts: Sequence[float]) -> np.ndarray:
    """Codes [s z]: z [z] moved by each amount along the direction [z].

    Raises:
      ValueError: z and the direction are not finite codes of one size, or there is no amount.
    """
    z, direction = _pair(z, direction)
    amounts = np.asarray(amounts, np.float64)
    if amounts.ndim != 1 or not len(amounts) or not np.isfinite(amounts).all():
        raise ValueError("amounts must be one finite number or more")
    return (z[None] + amounts[:, None] * direction[None]).astype(np.float32)


def columns_of(sections: Iterable[int], section_sizes: Sequence[int], z_size: int) -> np.ndarray:
    """[z] bool: the dimensions of z that belong to these sections.

    Raises:
      ValueError: the sizes don't add up to z, or there is no such section.
    """
    sizes, sections = [int(size) for size in section_sizes], sorted({int(i) for i in sections})
    if sum(sizes) != z_size or not sizes or min(sizes) < 1:
        raise ValueError(f"section sizes {sizes} don't add up to a code of {z_size} dimensions")
    if sections and not 0 <= sections[0] <= sections[-1] < len(sizes):
        wrong = next(i for i in sections if not 0 <= i < len(sizes))
        raise ValueError(f"sections are 0 to {len(sizes) - 1}; there is no {wrong}")
    return np.repeat(np.isin(np.arange(len(sizes)), sections), sizes)


def _pair(a, b) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(
            f"codes must be [z] of one size, but their shapes are {a.shape}, {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a code holds NaN or infinity")
    return a, b
