"""Is the code z alive, and what is it like? Its rank, its spectrum, its sections, its distances."""

from collections.abc import Sequence

import numpy as np

_ROWS = 1024  # of pairwise distances that are held at a time


def effective_rank(z) -> float:
    """How many directions the codes [n z] use: from 1 to z; 0 where all codes are equal.

    exp of the entropy of the singular values of the centred codes, normalised to sum 1
    (Roy & Vetterli 2007, "The effective rank", definition 1). It needs several codes a dimension:
    256 isotropic dimensions show 205 in as many codes, 255 in 10,000.

    Raises:
      ValueError: z is not [n z] with more codes than dimensions, or is not finite.
    """
    z = _checked(z)
    _check_enough(z)
    singular_values = np.linalg.svd(z - z.mean(axis=0)[None], compute_uv=False)
    # Rounding leaves equal codes a little apart.
    if singular_values[0] <= 1e-7 * np.linalg.norm(z):
        return 0.0
    shares = singular_values / singular_values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def dimension_std(z) -> dict[str, float]:
    """The standard deviations of the dimensions of codes [n z], summarised.

    Returns:
      "min", "median", "max": over the dimensions; "dead": the share of dimensions, in [0, 1], whose
      deviation is below 1 % of the largest (all of them where every code is the same).

    Raises:
      ValueError: z is not [n z] with two codes or more, or is not finite.
    """
    z = _checked(z)
    std = z.std(axis=0)
    return {
        "min": float(std.min()),
        "median": float(np.median(std)),
        "max": float(std.max()),
        "dead": float(np.mean(std <= 0.01 * std.max())) if std.max() > 0 else 1.0,
    }


def spectrum(z) -> dict:
    """The singular values of the centred codes [n z], as shares of the variance.

    Returns:
      "shares": [z], falling, sum 1; "dimensions": how many of them hold 50, 90 and 99 % of
      the variance.

    Raises:
      ValueError: z is not finite [n z] with more codes than dimensions, of which fewer show not all
        directions, or all codes are equal.
    """
    z = _checked(z)
    _check_enough(z)
    energies = np.square(np.linalg.svd(z - z.mean(axis=0)[None], compute_uv=False))
    if energies[0] <= 1e-14 * np.sum(np.square(z)):
        raise ValueError("all codes are equal: their spectrum is not defined")
    shares = energies / energies.sum()
    held = np.cumsum(shares)
    counts = {f"{p} %": int(np.searchsorted(held, p / 100 - 1e-9)) + 1 for p in (50, 90, 99)}
    return {"shares": shares.tolist(), "dimensions": counts}


def section_energy(z, section_sizes: Sequence[int]) -> list[float]:
    """The share of the variance of codes [n z] that lies in each section [l]; they sum to 1.

    Raises:
      ValueError: as `spectrum`; the sizes don't sum to z.
    """
    z = _checked(z)
    variances = np.array([part.var(axis=0).sum() for part in _sections(z, section_sizes)])
    if variances.sum() <= 1e-14 * np.mean(np.square(z).sum(axis=1)):
        raise ValueError("all codes are equal: their variance has no shares")
    return (variances / variances.sum()).tolist()


def section_correlation(z, section_sizes: Sequence[int]) -> list[list[float]]:
    """How alike each two sections of codes [n z] are, [l l] in [0, 1]: linear CKA.

    Kornblith et al. 2019 (arXiv 1905.00414, section 3): |X^T Y|^2 / (|X^T X| |Y^T Y|) of the
    centred sections; turning or scaling a section changes nothing. It is biased upwards where n is
    not much larger than the sections. A section without variance is like nothing: 0.

    Raises:
      ValueError: as `section_energy`, or there are no more codes than dimensions.
    """
    z = _checked(z)
    _check_enough(z)
    parts = [part - part.mean(axis=0)[None] for part in _sections(z, section_sizes)]
    norms = [np.linalg.norm(part.T @ part) for part in parts]
    return [
        [
            float(np.square(np.linalg.norm(x.T @ y)) / (n * m)) if n * m > 0 else 0.0
            for y, m in zip(parts, norms, strict=True)
        ]
        for x, n in zip(parts, norms, strict=True)
    ]


def alignment(x, y, alpha: float = 2.0) -> float:
    """Mean |x_i - y_i|^alpha of two codes [n z] of each picture, scaled to length 1; at least 0.

    Wang and Isola 2020 (arXiv 2005.10242, eq. 1); smaller is better aligned.

    Raises:
      ValueError: x and y are not finite [n z] of one shape, or a code is 0.
    """
    x, y = _unit(x, "x"), _unit(y, "y")
    if x.shape != y.shape:
        raise ValueError(f"x and y must be of one shape, but are {x.shape} and {y.shape}")
    return float(np.mean(np.linalg.norm(x - y, axis=1) ** alpha))


def uniformity(x, t: float = 2.0) -> float:
    """log of the mean of exp(-t |x_i - x_j|^2) over all pairs of codes [n z] of length 1; below 0.

    Wang and Isola 2020 (arXiv 2005.10242, eq. 2); smaller is more uniform. Pairs are those with
    i < j, computed in blocks.

    Raises:
      ValueError: x is not finite [n z] with two codes or more, or a code is 0.
    """
    x = _unit(x, "x")
    n, total = len(x), 0.0
    for start in range(0, n, _ROWS):
        rows = x[start : start + _ROWS]
        total += np.exp(-t * np.maximum(2 - 2 * rows @ x.T, 0)).sum()
    return float(np.log((total - n) / (n * (n - 1))))


def _checked(z, name: str = "z") -> np.ndarray:
    z = np.asarray(z).astype(np.float64)
    if z.ndim != 2 or len(z) < 2 or z.shape[1] < 1:
        raise ValueError(f"{name} must be [n z] with two codes or more, but its shape is {z.shape}")
    if not np.all(np.isfinite(z)):
        raise ValueError(f"{name} holds NaN or infinity")
    return z


def _check_enough(z: np.ndarray) -> None:
    if len(z) <= z.shape[1]:
        raise ValueError(
            f"z must hold more codes than dimensions, but it has {len(z)} codes of {z.shape[1]}"
        )


def _sections(z: np.ndarray, section_sizes: Sequence[int]) -> list[np.ndarray]:
    if sum(section_sizes) != z.shape[1] or min(section_sizes) < 1:
        raise ValueError(
            f"section_sizes must be at least 1 and sum to {z.shape[1]}, not {list(section_sizes)}"
        )
    return np.split(z, np.cumsum(section_sizes)[:-1], axis=1)


def _unit(x, name: str) -> np.ndarray:
    x = _checked(x, name)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"{name} holds a code of zeros, which has no direction")
    return x / lengths
