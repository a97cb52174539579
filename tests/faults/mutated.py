"""Rows 7, 14 and 15: configs and files that are not what they should be."""

import io
import json
import pathlib
import random
import sys
import threading
import time

import numpy as np
from PIL import Image

from soda_jax import experiment
from soda_jax.config_fields import FIELDS
from soda_jax.config_schema import ConfigError, load
from soda_jax.data import images
from soda_jax.data.source_arrays import open_arrays
from soda_jax.training.integrity import CorruptCheckpoint, seal, unseal
from tests.faults.results import Result
from tests.faults.runs import TINY

VALUES = (
    "nan", "inf", "-inf", "-1", "0", "1", "1e30", "10**400", "99999999999999999999", "2.5", "None",
    "True", "()", "(0,)", "(1,'x')", "[1]", "{}", "'", "", "text", "é\u202e", "__import__('os')",
)  # fmt: skip
BUILT = ("model.", "views.", "cameras.", "data.image_size", "data.channels", "mesh.", "optimizer.")


def mutated_configs(count: int, seed: int) -> Result:
    """A key with one letter changed, or a field with a value from the list, on the tiny config."""
    result = Result(
        "a config with one key or value changed",
        "refused in a line that names the key, or the model can be built",
    )
    draw, keys, slowest = random.Random(seed), sorted(FIELDS), 0.0
    seen = {"refused": 0, "built": 0, "without effect on the networks": 0}
    for _ in range(count):
        key, value = draw.choice(keys), draw.choice(VALUES)
        misspelt = draw.random() < 0.3
        if misspelt:
            at = draw.randrange(len(key))
            key = key[:at] + draw.choice("abcxyz_.") + key[at + draw.randrange(2) :]
        word, began = f"--config.{key}={value}", time.monotonic()
        try:
            config = load(TINY, [word])
            if key.startswith(BUILT):
                experiment.abstract_state(experiment.build(config))
                seen["built"] += 1
            else:
                seen["without effect on the networks"] += 1
        except ConfigError as error:
            seen["refused"] += 1
            slowest = max(slowest, time.monotonic() - began)
            result.expect(key in str(error), f"{word}: {error}")
        except Exception as error:
            result.failures.append(f"{word}: {type(error).__name__}: {error!s:.200}")
        result.trials += 1
    result.seen = seen | {"slowest refusal, s": slowest}
    return result


class Watch:
    """Notes what reading a file must never do, while the block lasts."""

    FORBIDDEN = ("os.system", "subprocess.", "os.exec", "os.fork", "socket.", "pickle.", "shutil.")
    _hooked, _active = False, threading.local()

    def __enter__(self) -> list[str]:
        if not Watch._hooked:
            sys.addaudithook(Watch._note)
            Watch._hooked = True
        Watch._active.events = []
        return Watch._active.events

    def __exit__(self, *exc_info: object) -> None:
        Watch._active.events = None

    @staticmethod
    def _note(event: str, arguments: tuple) -> None:
        events = getattr(Watch._active, "events", None)
        if events is None:
            return
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if event.startswith(Watch.FORBIDDEN) or writes:
            events.append(f"{event} {arguments!r:.100}")


def originals(folder: pathlib.Path) -> dict[str, bytes]:
    """A file of each kind that is read."""
    pixels = np.random.RandomState(0).randint(0, 256, (24, 24, 3)).astype(np.uint8)
    files = {}
    for kind in images.FORMATS:
        Image.fromarray(pixels).save(data := io.BytesIO(), kind)
        files[f"a.{kind.lower()}"] = data.getvalue()
    np.savez(data := io.BytesIO(), images=pixels[None].repeat(9, 0), labels=np.arange(9) % 3)
    files["a.npz"] = data.getvalue()
    np.save(data := io.BytesIO(), pixels[None])
    files["a.npy"] = data.getvalue()
    np.save(data := io.BytesIO(), np.array([{"a": print}], object), allow_pickle=True)
    files["pickle.npy"] = data.getvalue()
    files["record.json"] = json.dumps(seal(1, {"a": 1}, {"b": {"sha256": "c"}})).encode()
    return files


def mutate(data: bytes, draw: random.Random) -> bytes:
    data = bytearray(data)
    for _ in range(draw.choice((0, 1, 1, 2, 8))):
        at = draw.randrange(len(data))
        kind = draw.randrange(4)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        elif kind == 2:
            del data[at : at + draw.randrange(1, 40)]
        else:
            data[at:at] = draw.randbytes(draw.randrange(1, 40))
        if not data:
            return b""
    return bytes(data)


def mutated_files(count: int, seed: int, folder: pathlib.Path) -> Result:
    """Files of every kind with some bytes changed go through the door for their kind."""
    result = Result(
        "a picture, array or record file with bytes changed",
        "read, or refused in a line; nothing is executed, written or connected to",
    )
    draw, files, seen = random.Random(seed), originals(folder), {"read": 0, "refused": 0}
    for _ in range(count):
        name = draw.choice(sorted(files))
        data, path = mutate(files[name], draw), folder / name
        path.write_bytes(data)
        began = time.monotonic()
        with Watch() as events:
            try:
                read(path)
                seen["read"] += 1
            except (ValueError, FileNotFoundError, CorruptCheckpoint) as error:
                seen["refused"] += 1
                result.expect(
                    "\n" not in str(error)[:100] and str(error), f"{name}: {error!r:.200}"
                )
            except Exception as error:
                result.failures.append(f"{name}: {type(error).__name__}: {error!s:.200}")
        result.expect(not events, f"{name}: {events}")
        result.most("slowest, s", time.monotonic() - began)
        result.trials += 1
    result.seen |= seen
    return result


def read(path: pathlib.Path) -> None:
    if path.suffix == ".json":
        unseal(1, json.loads(path.read_bytes()))
    elif path.suffix in (".npz", ".npy"):
        source = open_arrays(str(path), "all", 16, 3)
        shape = source.images(np.arange(len(source))).shape
        assert shape[1:] == (16, 16, 3), shape
    else:
        assert images.load_image(path, 16, 3).shape == (16, 16, 3)
