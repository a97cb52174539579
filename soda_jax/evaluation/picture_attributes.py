"""What can be read off a picture without a network: brightness, colour, detail, place."""

import numpy as np


def picture_attributes(images: np.ndarray) -> dict[str, np.ndarray]:
    """Pictures uint8 [n h w c] -> name -> [n].

    "brightness" and "contrast": mean and standard deviation of the grey values, in [0, 1];
    "detail": the mean absolute difference of neighbours, beside the contrast; "horizontal" and
    "vertical": where the middle of what deviates from the border's mean lies, from -1 (left, top)
    to 1. Of colours: "saturation", the mean range over the channels; "red to blue", red less blue;
    "green", green less the mean of the two. All of them are ours [D].

    Raises:
      ValueError: images are not uint8 [n h w 1] or [n h w 3], of 2 pixels a side or more.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"pictures must be uint8 [n h w 1|3], not {images.dtype} {images.shape}")
    if min(images.shape[1:3]) < 2 or not len(images):
        raise ValueError(f"pictures must have 2 pixels a side or more, not {images.shape}")
    x = images.astype(np.float64) / 255
    grey = x.mean(axis=-1)
    contrast = grey.std(axis=(1, 2))
    steps = [np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    border = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    weight = np.abs(grey - border.mean(axis=1)[:, None, None]) + 1e-6
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    rows, columns = (np.linspace(-1, 1, side) for side in grey.shape[1:])
    found = {
        "brightness": grey.mean(axis=(1, 2)),
        "contrast": contrast,
        "detail": sum(steps) / 2 / np.maximum(contrast, 1e-3),
        "horizontal": (weight.sum(axis=1) * columns[None]).sum(axis=1),
        "vertical": (weight.sum(axis=2) * rows[None]).sum(axis=1),
    }
    if images.shape[-1] == 3:
        red, green, blue = (x[..., channel].mean(axis=(1, 2)) for channel in range(3))
        found["saturation"] = (x.max(axis=-1) - x.min(axis=-1)).mean(axis=(1, 2))
        found["red to blue"] = red - blue
        found["green"] = green - (red + blue) / 2
    return found
