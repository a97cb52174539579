"""Is the code z alive? Small diagnostics of an array of codes [n z]."""

import numpy as np


def effective_rank(z) -> float:
    """How many directions the codes [n z] use: from 1 to z; 0 where all codes are equal.

    exp of the entropy of the singular values of the centred codes, normalised to sum 1
    (Roy & Vetterli 2007, "The effective rank", definition 1).

    Raises:
      ValueError: z is not [n z] with two codes or more, or is not finite.
    """
    z = _checked(z)
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


def _checked(z):
    z = np.asarray(z).astype(np.float64)
    if z.ndim != 2 or len(z) < 2 or z.shape[1] < 1:
        raise ValueError(f"z must be [n z] with two codes or more, but its shape is {z.shape}")
    if not np.all(np.isfinite(z)):
        raise ValueError("z holds NaN or infinity")
    return z
