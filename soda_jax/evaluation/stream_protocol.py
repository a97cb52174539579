"""How streamed linear heads are trained: the published protocols, each with its source."""

import dataclasses
import math

NORMS = {
    "none": "none",
    "batch": "BatchNorm without parameters",
    "l2_batch": "L2-normalised, then BatchNorm without parameters",
}
SOLVERS = {"adam": "Adam", "sgd": "SGD", "lars": "LARS"}


@dataclasses.dataclass(frozen=True)
class StreamProtocol:
    """The settings of `stream_probe`; `dataclasses.replace` makes a variant.

    Attributes:
      name: printed with the result.
      norm: "none", "batch" (BatchNorm without parameters: the batch's statistics in training,
        running ones, momentum .1 and unbiased variance, at test), or "l2_batch" (rows of length 1
        before it).
      optimizer: "adam", "sgd" or "lars"; the latter two with `momentum`.
      learning_rate: the peak; at batches of `learning_rate_batch` where that is given, and in
        proportion to the batch then.
      num_epochs, warmup_epochs: of training, and of these with a linear rise from 0 at the start.
      schedule: the cosine to 0 is stepped by "epoch" or by "step".
      batch_size: the published one; the stream decides.
      init: "uniform" in +-1/sqrt(d), kernel and bias (PyTorch's), or "normal": deviation .01, bias
        0.
      weight_decay: |kernel|^2 / 2 has this weight in the loss.
      pictures: in words, what the stream must feed: it is the caller's part, and is printed.
      source: where the protocol was published.
    """

    name: str
    norm: str = "none"
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    learning_rate_batch: int | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    num_epochs: int = 15
    warmup_epochs: int = 0
    schedule: str = "epoch"
    batch_size: int = 128
    init: str = "uniform"
    pictures: str = "not said"
    source: str = "own"

    def __post_init__(self):
        for field, value, allowed in (
            ("norm", self.norm, NORMS),
            ("optimizer", self.optimizer, SOLVERS),
            ("schedule", self.schedule, ("epoch", "step")),
            ("init", self.init, ("uniform", "normal")),
        ):
            if value not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, not {value!r}")
        if self.num_epochs < 1 or not 0 <= self.warmup_epochs < self.num_epochs:
            raise ValueError(
                f"num_epochs={self.num_epochs} must be at least 1 and above "
                f"warmup_epochs={self.warmup_epochs}, which must be at least 0"
            )
        if self.warmup_epochs and self.schedule == "epoch":
            raise ValueError("a warm-up rises by step: warmup_epochs needs schedule='step'")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, but is {self.learning_rate}")
        if not (0 <= self.momentum < 1 and 0 <= self.weight_decay < math.inf):
            raise ValueError(
                f"momentum must be in [0, 1) and weight_decay at least 0, but they are "
                f"{self.momentum} and {self.weight_decay}"
            )

    def peak(self, batch_size: int) -> float:
        """The highest learning rate under batches of this size."""
        if self.learning_rate_batch is None:
            return self.learning_rate
        return self.learning_rate * batch_size / self.learning_rate_batch

    def learning_rate_at(self, progress: float, batch_size: int) -> float:
        """The learning rate after `progress` epochs: warm-up, then a cosine to 0 at the end."""
        peak = self.peak(batch_size)
        if progress < self.warmup_epochs:
            return peak * progress / self.warmup_epochs
        rest = (progress - self.warmup_epochs) / (self.num_epochs - self.warmup_epochs)
        return peak * 0.5 * (1 + math.cos(math.pi * rest))

    def described(self, batch_size: int) -> dict:
        """The part of a result's protocol that says how the heads were trained."""
        momentum = {} if self.optimizer == "adam" else {"momentum": self.momentum}
        return {
            "norm": NORMS[self.norm],
            "solver": SOLVERS[self.optimizer],
            "learning_rate": self.peak(batch_size),
            "learning_rate_decay": f"cosine, by {self.schedule}",
            **momentum,
            "weight_decay": self.weight_decay,
            "epochs": self.num_epochs,
            "warmup_epochs": self.warmup_epochs,
            "batch_size": batch_size,
            "published_batch_size": self.batch_size,
            "init": self.init,
            "pictures_asked_for": self.pictures,
            "source": self.source,
        }


# Its learning rate is 1e-3 for each GPU, with a batch of 128 on each.
DDAE_PROBE = StreamProtocol(
    name="DDAE linear probe",
    norm="none",
    optimizer="adam",
    learning_rate=1e-3,
    learning_rate_batch=128,
    num_epochs=15,
    schedule="epoch",
    batch_size=128,
    init="uniform",
    pictures=(
        "noised to a fixed t, with fresh noise at every pass; in training cropped at random after "
        "padding by 4 and flipped at random; at test not augmented"
    ),
    source="FutureXiang/ddae [R]; Xiang et al. 2023, arXiv 2303.09769",
)

# `linear_probe.adam_probe` is the same on features that are computed once.
SODA_PROBE = StreamProtocol(
    name="FutureXiang/soda linear probe",
    norm="l2_batch",
    optimizer="adam",
    learning_rate=1e-3,
    num_epochs=15,
    schedule="epoch",
    batch_size=128,
    init="uniform",
    pictures="in training cropped and flipped anew in every epoch; at test not augmented",
    source="FutureXiang/soda [R]",
)

MAE_PROBE = StreamProtocol(
    name="MAE linear probe",
    norm="batch",
    optimizer="lars",
    learning_rate=0.1,
    learning_rate_batch=256,
    momentum=0.9,
    weight_decay=0.0,
    num_epochs=90,
    warmup_epochs=10,
    schedule="step",
    batch_size=16384,
    init="normal",
    pictures="in training RandomResizedCrop and random flip; at test the centre",
    source="He et al. 2022, arXiv 2111.06377, table 10 [P]; initial head as in its code [R]",
)
