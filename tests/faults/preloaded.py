"""What every run imports; each is forked from a process that has done so, before any device."""

import orbax.checkpoint  # noqa: F401
import sklearn.datasets  # noqa: F401
import tensorboardX  # noqa: F401

import soda_jax.__main__  # noqa: F401
import soda_jax.pretrain  # noqa: F401
