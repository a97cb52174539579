"""The page to play with: over HTTP, and in headless Chromium where there is one."""

import base64
import concurrent.futures
import io
import json
import pathlib
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from soda_jax import experiment, explore, pretrained
from soda_jax.config_schema import ConfigError, load
from soda_jax.playground import Playground
from soda_jax.uses.common import Studio
from tests.page_driver import browser, change, result, serving, wait_for

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 4


@pytest.fixture(scope="module")
def model():
    overrides = [f"--config.apply.num_steps={STEPS}", "--config.model.denoiser.zero_init=false"]
    return pretrained.untrained(
        experiment.build(load(str(ROOT / "configs" / "smoke.py"), overrides))
    )


@pytest.fixture(scope="module")
def site(model, tmp_path_factory):
    """The address of a running server."""
    train, test = (experiment.open_data(model.parts, split) for split in ("train", "test"))
    playground = Playground(model, Studio(model, train, test, tmp_path_factory.mktemp("none")))
    with serving(playground) as address:
        yield address


def ask(site, path, body=None, **headers):
    """(status, the bytes of the answer)."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(site + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def drawn(site, **request):
    """The parts of a drawing, in order."""
    status, body = ask(site, "/draw", {"a": "test0"} | request)
    assert status == 200, body
    return [json.loads(line) for line in body.splitlines()]


def picture(part):
    data = base64.b64decode(part["picture"].removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def png(size=20, value=200):
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_drawing_streams_and_ends_as_the_sampler_does(site, model):
    parts = drawn(site, seed=5)
    assert [part["step"] for part in parts] == [2, 4] and parts[-1]["of"] == STEPS
    setup = json.loads(ask(site, "/setup")[1])
    source = picture(setup["pictures"][0])
    expected = model.decode(model.encode(source[None]), seed=5, num_steps=STEPS)[0]
    np.testing.assert_allclose(picture(parts[-1]).astype(int), expected.astype(int), atol=1)
    assert drawn(site, seed=5) == parts
    assert drawn(site, seed=6) != parts


def test_moves_change_the_picture_and_all_sections_of_b_make_it_b(site, model):
    plain, moved = drawn(site), drawn(site, moves={"principal": [3.0]})
    assert plain[-1] != moved[-1]
    assert drawn(site, moves={"principal": [0, 0]}) == plain
    sections = list(range(model.parts.num_sections))
    assert drawn(site, b="test1", from_b=sections) == drawn(site, a="test1")
    assert drawn(site, b="test1", from_b=sections[:2]) not in (plain, drawn(site, a="test1"))
    kept = [drawn(site, keep_noise=True, seed=seed) for seed in (0, 1)]
    assert kept[0] == kept[1] != plain


def test_a_dropped_picture_can_be_drawn(site):
    status, body = ask(site, "/upload", png())
    found = json.loads(body)
    assert status == 200 and picture(found).shape == (16, 16, 3)
    assert drawn(site, a=found["id"])[-1]["step"] == STEPS


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"a": "nobody"}, "not here"),
        ({}, "not here"),
        ([], "must be an object"),
        (b"{", "not JSON"),
        (b"[" * 40_000, "not JSON"),
        ({"a": "test0", "speed": 1}, "no field 'speed'"),
        ({"a": "test0", "b": "test1", "from_b": [9]}, "there is no 9"),
        ({"a": "test0", "from_b": [0]}, "not here"),
        ({"a": "test0", "from_b": "0"}, "list of sections"),
        ({"a": "test0", "moves": {"principal": [99]}}, "from -5 to 5"),
        ({"a": "test0", "moves": {"principal": [float("nan")]}}, "from -5 to 5"),
        ({"a": "test0", "moves": {"sideways": [1]}}, "no 'sideways'"),
        ({"a": "test0", "moves": {"principal": [0] * 99}}, "up to 2 numbers"),
        ({"a": "test0", "seed": -1}, "whole number"),
        ({"a": "test0", "keep_noise": 1}, "true or false"),
        (b" " * 70_000, "larger than"),
    ],
)
def test_a_bad_request_gets_a_sentence(site, request_, message):
    status, body = ask(site, "/draw", request_)
    assert status == 400 and message in json.loads(body)["error"]


@pytest.mark.parametrize("data", [b"no picture", b"", png()[:60], b"GIF89a" + bytes(40)])
def test_a_bad_upload_gets_a_sentence(site, data):
    status, body = ask(site, "/upload", data)
    assert status == 400 and "allowed are PNG, JPEG and WEBP" in json.loads(body)["error"]


def test_what_is_too_large_or_comes_by_another_name_is_refused(site):
    status, body = ask(site, "/upload", bytes(20_000_001))
    assert status == 400 and "larger than 20,000,000 bytes" in json.loads(body)["error"]
    assert ask(site, "/setup", Host="evil.example")[0] == 400


def test_requests_from_other_sites_are_refused(site):
    for path, body in (("/draw", {"a": "test0"}), ("/upload", png())):
        status, answer = ask(site, path, body, Origin="http://evil.example")
        assert status == 400 and "other sites" in json.loads(answer)["error"]
        assert ask(site, path, body, Origin=site)[0] == 200


def test_many_at_once_take_turns_and_too_many_are_told(site, monkeypatch):
    alone = {seed: drawn(site, seed=seed) for seed in range(3)}
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda seed: drawn(site, seed=seed), alone))
    assert together == list(alone.values())
    monkeypatch.setattr(explore, "MAX_WAITING", 0)
    status, answer = ask(site, "/draw", {"a": "test0"})
    assert status == 503 and "wait a moment" in json.loads(answer)["error"]


def test_a_reader_that_goes_away_gives_its_turn_back(site, monkeypatch):
    monkeypatch.setattr(explore, "MAX_WAITING", 1)
    host, port = site.removeprefix("http://").split(":")
    body = b'{"a": "test0"}'
    head = f"POST /draw HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
    wait_for(lambda: ask(site, "/draw", {"a": "test0"})[0] == 200)


def test_a_port_that_is_taken_is_a_config_error():
    with explore.listen(0) as first:
        first.listen()
        with pytest.raises(ConfigError, match=r"explore.port = \d+: .*\(0 finds a free one\)"):
            explore.listen(first.getsockname()[1])


def slide(window, index, value):
    window.execute_script(
        """const slider = document.querySelectorAll("#sliders input")[arguments[0]];
        slider.value = arguments[1]; slider.dispatchEvent(new Event("input"));""",
        index,
        value,
    )


def test_a_person_picks_slides_mixes_and_drops_pictures(site, tmp_path):
    with browser() as first, browser() as second:
        for window in (first, second):  # two at once
            window.get(site)
        start = wait_for(lambda: result(first))
        assert wait_for(lambda: result(second)) == start
        assert first.find_element("id", "name").text == "smoke"
        change(first, lambda: slide(first, 0, 3))
        assert first.find_element("css selector", "#sliders output").text == "3.00"
        assert result(second) == start, "what one does is nothing to the other"
        mixed = change(
            second, lambda: second.find_elements("css selector", "#sections input")[0].click()
        )
        assert mixed != start
        change(second, lambda: second.find_elements("css selector", "#strip img")[2].click())
        assert change(first, lambda: first.find_element("id", "reset").click()) == start

        good, bad = tmp_path / "good.png", tmp_path / "bad.png"
        good.write_bytes(png())
        bad.write_bytes(b"this is no picture")
        count = len(first.find_elements("css selector", "#strip img"))
        change(first, lambda: first.find_element("id", "file").send_keys(str(good)))
        assert len(first.find_elements("css selector", "#strip img")) == count + 1
        first.find_element("id", "file").send_keys(str(bad))
        message = wait_for(lambda: first.find_element("id", "message").text)
        assert "not a picture of a known kind" in message
        assert len(first.find_elements("css selector", "#strip img")) == count + 1
