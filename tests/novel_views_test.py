"""Models that know of cameras: what they are told, and what the command draws and measures."""

import json
import pathlib
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import soda_jax
from soda_jax import config_schema, experiment, inputs, pretrained
from soda_jax.applications.orbit import beside, orbit, stand
from soda_jax.applications.reconstruct import under_code
from soda_jax.config_schema import ConfigError, load
from soda_jax.data import cameras, views
from soda_jax.data.cameras import Cameras
from soda_jax.evaluation.view_references import mean_of_nearest, nearest_source
from soda_jax.novel_views import novel_views
from soda_jax.playground import InputError, Playground, how_camera_stands, how_cameras_stand
from soda_jax.pretrain import pretrain
from soda_jax.uses.common import Studio
from soda_jax.uses.novel_views import Views, draw_orbits, larger
from tests.page_driver import browser, change, serving, wait_for

pytestmark = pytest.mark.usefixtures("shared_experiments")
ROOT = pathlib.Path(__file__).parents[1]
TINY = (
    "--config.data.image_size=16", "--config.views.source.size=8", "--config.views.target.size=16",
    "--config.model.encoder.width_multiplier=0.0625", "--config.model.denoiser.width=8",
    "--config.model.denoiser.head_size=8", "--config.model.denoiser.multipliers=(1,2)",
    "--config.model.denoiser.cross_attention_levels=(1,)", "--config.model.z_size=10",
    "--config.model.denoiser.zero_init=False", "--config.cameras.channels=18",
    "--config.cameras.rgb_features=4", "--config.cameras.frame=source",
    "--config.cameras.max_sources=2", "--config.cameras.targets=2",
    "--config.optimizer.method=adamw",  # Muon takes twice as long to compile
    "--config.train.batch_size=8", "--config.train.num_steps=2", "--config.train.log_every=1",
    "--config.train.diagnose_every=2", "--config.train.probe_every=0",
    "--config.train.sample_every=0", "--config.sample.num_steps=2", "--config.sample.batch_size=16",
    "--config.novel_views.num_objects=4", "--config.novel_views.targets=2",
    "--config.novel_views.num_shown=2", "--config.novel_views.orbit_frames=4",
)  # fmt: skip


def tiny(*overrides):
    return load(str(ROOT / "configs" / "scenes.py:cpu"), [*TINY, *overrides])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("scenes")
    pretrain(tiny(), str(workdir))
    return workdir


@pytest.fixture(scope="module")
def model(workdir):
    return soda_jax.load(str(workdir))


@pytest.fixture(scope="module")
def posed(model):
    """Eight objects with three views each: pictures and cameras."""
    source = experiment.open_data(model.parts, "test")
    indices = source.starts[:8, None] + np.arange(3)[None]
    pictures = source.images(indices.ravel()).reshape(8, 3, 16, 16, 3)
    return pictures, source.cameras(indices)


def some(seen, *where):
    return Cameras(*(part[where] for part in seen))


EVERY = slice(None)


def test_training_logs_what_z_is_worth(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "loss_with_code/shuffled", "effective_rank"} <= set().union(*lines)


def test_pairs_have_one_to_k_sources_each_as_often():
    b, k, n = 4000, 3, 2
    v = k + n
    moved = jnp.eye(4)[None].repeat(v, 0).at[:, 0, 3].set(jnp.arange(v))  # view i stands at x = i
    seen = Cameras(jnp.broadcast_to(moved, (b, v, 4, 4)), jnp.full((b, v, 4), 0.5))
    images = jnp.broadcast_to(
        jnp.arange(v, dtype=jnp.uint8)[None, :, None, None, None], (b, v, 1, 1, 3)
    )
    view = views.View(size=1, crop_prob=0.0, flip_prob=0.0)
    options = views.CameraOptions(channels=6, targets=n)
    pair = jax.jit(views.pair, static_argnums=(2, 3, 4))
    batch = pair(jax.random.key(0), views.Posed(images, seen), view, view, options)
    np.testing.assert_allclose(
        batch.source[:, :, 0, 0, 0] * 127.5 + 127.5, [[0, 1, 2]] * b, atol=0.01
    )
    np.testing.assert_allclose(batch.target[:, 0, 0, 0] * 127.5 + 127.5, [3, 4] * b, atol=0.01)
    np.testing.assert_allclose(batch.poses.target_rays[:, 0, 0, 0], [3, 4] * b)
    mask = np.asarray(batch.poses.source_mask)
    assert mask[:, 0].all() and (mask[:, 1] >= mask[:, 2]).all()
    np.testing.assert_allclose(np.bincount(mask.sum(1))[1:] / b, 1 / k, atol=0.03)


def test_an_object_is_mirrored_with_its_cameras_and_recoloured_in_all_its_views():
    """Every view shows one picture, with a dark left half, so that what differs was augmented."""
    b, v = 400, 3
    pose = cameras.look_at(np.array([1.0, 0.5, -2.0]), np.zeros(3), np.array([0, 1.0, 0]))
    lens = cameras.intrinsics_of_angle(40.0)
    seen = Cameras(np.broadcast_to(pose, (b, v, 4, 4)), np.broadcast_to(lens, (b, v, 4)))
    images = np.full((b, v, 2, 2, 3), (90, 120, 160), np.uint8)
    images[..., 0, :] //= 2
    strength = (0.4, 0.0, 0.4, 0.1)
    view = views.View(
        size=2, crop_prob=0.0, flip_prob=0.0, jitter_prob=1.0, jitter_strength=strength
    )
    options = views.CameraOptions(
        encoding="plucker", channels=6, frame="world", max_sources=2, mirror_prob=0.5
    )
    pair = jax.jit(views.pair, static_argnums=(2, 3, 4, 5))
    arguments = jax.random.key(0), views.Posed(images, seen), view, view, options
    batch = pair(*arguments, True)
    for index in range(2):
        np.testing.assert_array_equal(batch.source[:, index], batch.target)
    assert np.ptp(np.asarray(batch.target[:, 0].max(1)), axis=0).min() > 0.3
    mirrored = np.asarray(batch.target[..., 0, :].sum((1, 2)) > batch.target[..., 1, :].sum((1, 2)))
    assert 0.4 < mirrored.mean() < 0.6
    rays = np.asarray(batch.poses.target_rays)
    np.testing.assert_array_equal(rays, np.asarray(batch.poses.source_rays[:, 0]))
    # Mirrored along x: of the directions x changes, of the moments y and z, left and right.
    plain, mirror = rays[~mirrored], rays[mirrored]
    np.testing.assert_allclose(plain, plain[:1].repeat(len(plain), 0))
    expected = plain[0, :, ::-1] * np.array([-1, 1, 1, 1, -1, -1])
    np.testing.assert_allclose(mirror, expected[None].repeat(len(mirror), 0), atol=1e-5)
    apart = pair(*arguments, False)
    assert not np.array_equal(apart.source[:, 0], apart.target)


def test_a_code_is_the_mean_of_its_sources_codes(model, posed):
    pictures, seen = posed
    both = model.encode_views(pictures[:, :2], some(seen, EVERY, slice(2)))
    masked = model.encode_views(pictures, seen, np.tile([True, True, False], (8, 1)))
    np.testing.assert_allclose(masked, both, atol=1e-5)
    first = model.encode_views(pictures[:, :1], some(seen, EVERY, slice(1)))
    np.testing.assert_allclose(first, model.encode(pictures[:, 0]), atol=1e-5)
    assert np.abs(first - both).max() > 1e-3
    hidden = np.tile([True, False, False], (8, 1))
    np.testing.assert_allclose(model.encode_views(pictures, seen, hidden), first, atol=1e-5)


def test_turning_the_whole_world_changes_nothing(model, posed):
    pictures, seen = posed
    turn = cameras.look_at(np.array([1.0, 2.0, 0.5]), np.zeros(3), np.array([0.0, 0.0, 1.0]))
    turned = Cameras(turn[None, None] @ seen.pose, seen.intrinsics)
    one, other = (
        model.novel_views(
            pictures[:, :2], some(world, EVERY, slice(2)), some(world, EVERY, slice(2, 3))
        )
        for world in (seen, turned)
    )
    assert one.shape == (8, 1, 16, 16, 3)
    np.testing.assert_allclose(one.astype(int), other.astype(int), atol=1)


def test_the_camera_is_used_with_z_and_without(model, posed):
    pictures, seen = posed
    sources = pictures[:, :1], some(seen, EVERY, slice(1))
    for null in (False, True):
        drawn = model.novel_views(*sources, some(seen, EVERY, slice(1, 3)), null=null)
        alike = model.novel_views(*sources, some(seen, EVERY, [1, 1]), null=null)
        assert (drawn[:, 0] != drawn[:, 1]).any()
        # The same camera twice: another noise, and another picture, but for z's sake.
        assert np.abs(alike[:, 0].astype(int) - alike[:, 1]).mean() > 0


def test_the_unconditional_pass_keeps_the_pose(model):
    """In guidance f(0) is given the target's rays as f(z) is."""
    parts = model.parts
    x_t, t, z = jnp.ones((1, 16, 16, 3)), jnp.ones((1,)), jnp.zeros((1, 10))
    rays = jnp.linspace(-1, 1, 8 * 8 * 18).reshape(1, 8, 8, 18)  # of patches

    @partial(jax.jit, static_argnums=0)
    def predict(scale, rays):
        denoise_fn = under_code(
            parts.model, model.variables, z, guidance_scale=scale, target_rays=rays
        )
        return denoise_fn(x_t, t)

    # With a null code both passes are the same function of (x_t, t, rays), whatever the scale.
    np.testing.assert_allclose(predict(0.0, rays), predict(2.0, rays), atol=1e-4)
    assert jnp.abs(predict(2.0, rays) - predict(2.0, -rays)).max() > 1e-3


def test_wrong_sources_and_cameras_are_named(model, posed):
    pictures, seen = posed
    with pytest.raises(ValueError, match="k > 0 sources"):
        model.encode_views(pictures[:, :0], some(seen, EVERY, slice(0)))
    with pytest.raises(ValueError, match="keep a source of each"):
        model.encode_views(pictures, seen, np.zeros((8, 3), bool))
    with pytest.raises(ValueError, match="one for each picture"):
        model.encode_views(pictures, some(seen, EVERY, slice(2)))
    broken = seen.pose.copy()
    broken[0, 1, :3, :3] *= 2
    with pytest.raises(ValueError, match="sources: the pose of view 1 is not a rotation"):
        model.encode_views(pictures, Cameras(broken, seen.intrinsics))
    with pytest.raises(ValueError, match="sources: no cameras"):
        model.encode_views(pictures, None)
    lens = seen.intrinsics.copy()
    lens[2, 1, 0] = 0
    with pytest.raises(ValueError, match="sources: the lens of view 7 has"):
        model.encode_views(pictures, Cameras(seen.pose, lens))
    many = ring(np.full(6, 1.0))
    many[4] = cameras.to_opencv(many[4], "opengl")
    lens, images = np.full((1, 6, 4), 0.5), np.zeros((1, 6, 16, 16, 3), np.uint8)
    mixed = Cameras(many[None], lens)
    with pytest.raises(ValueError, match="sources of object 0: 1 of 6 cameras look away.*view 4"):
        inputs.views(model.parts, images, mixed, None)
    inputs.views(model.parts, images, mixed, np.arange(6)[None] != 4)  # it isn't looked at
    with pytest.raises(ValueError, match="targets: no cameras"):
        model.novel_views(pictures, seen, None)
    with pytest.raises(ValueError, match="first source can't be left out"):
        model.encode_views(pictures, seen, np.tile([False, True, True], (8, 1)))


def test_views_that_are_not_square_are_cut_with_their_lenses(model, posed):
    pictures, seen = posed
    wide = np.concatenate([pictures[:, :, :, :3] * 0, pictures, pictures[:, :, :, :5] * 0], axis=3)
    # In pixels the focal length stays; the centre is 3 columns further right, then 4 further left.
    lens, moved = seen.intrinsics.copy(), seen.intrinsics.copy()
    lens[..., 0] *= 16 / 24
    lens[..., 2] = (lens[..., 2] * 16 + 3) / 24
    moved[..., 2] -= 1 / 16
    found = model.encode_views(wide, Cameras(seen.pose, lens))
    expected = model.encode_views(wide[:, :, :, 4:20], Cameras(seen.pose, moved))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture(scope="module")
def upright(tmp_path_factory):
    """The workdir of a model that needs to know where in the world a picture was taken."""
    workdir = tmp_path_factory.mktemp("upright")
    pretrain(
        tiny(
            "--config.cameras.frame=upright",
            "--config.model.denoiser.cross_attention_levels=()",
            "--config.train.probe_every=2",
            "--config.train.probe_examples=40",
            "--config.train.frechet_images=0",
        ),
        str(workdir),
    )
    return workdir


def test_an_upright_model_trains_and_wants_a_camera_for_each_picture(posed, upright):
    lines = (upright / "metrics.jsonl").read_text().splitlines()
    logged = set().union(*map(json.loads, lines))
    assert {"loss_with_code/z", "effective_rank", "linear/z"} <= logged
    model = soda_jax.load(str(upright))
    with pytest.raises(ConfigError, match="cameras.frame = 'upright'.*picture alone has none"):
        model.encode(posed[0][:, 0])
    pictures, seen = posed
    test = experiment.open_data(model.parts, "test")
    # The first view of each object, by its own camera, whatever is asked for beside it.
    first = model.features_of(test, test.starts[:8])["z"]
    expected = model.encode_views(pictures[:, :1], some(seen, EVERY, slice(1)))
    np.testing.assert_allclose(first, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(
        ConfigError, match="train.sample_every = 3: 0 for cameras.frame = 'upright'"
    ):
        tiny("--config.cameras.frame=upright", "--config.train.sample_every=3")


def test_predictions_of_each_source_alone_are_averaged(posed, upright):
    pictures, seen = posed
    codes, fused = (
        pretrained.restore(
            config_schema.recall(str(upright), [f"--config.cameras.fusion={how}"]), str(upright)
        )
        for how in ("codes", "predictions")
    )
    targets, options = some(seen, EVERY, slice(2, 3)), {"num_steps": 1}

    def drawn(model, *which, mask=None):
        sources = pictures[:, list(which)], some(seen, EVERY, list(which))
        return model.novel_views(*sources, targets, mask, **options).astype(float)

    # From one source the two are the same; one evaluation is the prediction itself.
    np.testing.assert_allclose(drawn(fused, 0), drawn(codes, 0), atol=1)
    one, other = drawn(codes, 0), drawn(codes, 1)
    inside = (np.minimum(one, other) > 0) & (np.maximum(one, other) < 255)  # else it is cut first
    assert inside.mean() > 0.3
    mean = ((one + other) / 2)[inside]
    for order in ((0, 1), (1, 0)):  # neither is the first
        np.testing.assert_allclose(drawn(fused, *order)[inside], mean, atol=1.5)
    assert np.abs(drawn(codes, 0, 1)[inside] - mean).max() > 3
    masked = drawn(fused, 0, 1, mask=np.tile([False, True], (8, 1)))
    np.testing.assert_allclose(masked, drawn(codes, 1), atol=1)


def test_turning_the_world_about_its_upright_axis_changes_nothing(posed, upright):
    pictures, seen = posed
    model = soda_jax.load(str(upright))

    def drawn(turn):
        turned = Cameras((turn @ seen.pose).astype(np.float32), seen.intrinsics)
        first, third = some(turned, EVERY, slice(2)), some(turned, EVERY, slice(2, 3))
        return model.novel_views(pictures[:, :2], first, third).astype(int)

    about_y, about_x = np.eye(4), np.eye(4)
    about_y[[0, 2, 0, 2], [0, 2, 2, 0]] = [0.6, 0.6, 0.8, -0.8]
    about_x[[1, 2, 1, 2], [1, 2, 2, 1]] = [0.6, 0.6, 0.8, -0.8]
    np.testing.assert_allclose(drawn(about_y), drawn(np.eye(4)), atol=1)
    assert np.abs(drawn(about_x) - drawn(np.eye(4))).max() > 1


def test_models_and_pictures_without_cameras_are_refused(monkeypatch, workdir):
    with pytest.raises(ConfigError, match="cameras.encoding.*nearest: 'none'"):
        tiny("--config.data.source=digits")
    with pytest.raises(ConfigError, match="views.target.crop_prob.*would move the rays"):
        tiny("--config.views.target.crop_prob=0.5")
    plain = tiny("--config.cameras.encoding=none")
    monkeypatch.setattr(
        pretrained,
        "restore",
        lambda *args, **kwargs: SimpleNamespace(parts=experiment.build(plain)),
    )
    with pytest.raises(ConfigError, match="knows of no cameras"):
        novel_views(plain, str(workdir))


def test_an_orbit_goes_around_what_the_cameras_look_at(posed):
    poses = posed[1].pose[0]
    path = orbit(poses, 8)
    cameras.check_poses(path, "orbit")
    np.testing.assert_allclose(path[0], poses[0], atol=1e-5)
    centre = cameras.meeting_point(np.asarray(poses, np.float64))
    distance = np.linalg.norm(path[:, :3, 3] - centre, axis=1)
    np.testing.assert_allclose(distance, distance[0], rtol=1e-4)
    np.testing.assert_allclose(path[:4, :3, 3] + path[4:, :3, 3], np.broadcast_to(
        path[0, :3, 3] + path[4, :3, 3], (4, 3)), atol=1e-4)  # fmt: skip


def test_cameras_that_look_in_parallel_have_nothing_to_go_around():
    ahead = np.tile(np.eye(4, dtype=np.float32), (4, 1, 1))
    ahead[:, 0, 3] = np.arange(4)
    for around in (stand, lambda poses: orbit(poses, 4)):
        with pytest.raises(ValueError, match="look in parallel"):
            around(ahead)
    apart = SimpleNamespace(
        starts=np.array([0, 4]), cameras=lambda rows: Cameras(ahead[rows], None)
    )
    assert how_cameras_stand(apart) is None


def test_a_picture_keeps_its_place_at_another_size():
    picture = np.arange(4).reshape(2, 2, 1)
    np.testing.assert_array_equal(larger(picture, 4), picture.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(larger(picture, 3)[..., 0], [[0, 0, 1], [0, 0, 1], [2, 2, 3]])


def ring(heights):
    """Cameras at places around (0, .2, 0), at these heights, that look at it."""
    angles = np.linspace(0, 2 * np.pi, len(heights), endpoint=False)
    places = np.stack([2 * np.cos(angles), heights, 2 * np.sin(angles)], axis=-1)
    return cameras.look_at(places, np.array([0.0, 0.2, 0.0]), np.array([0.0, 1.0, 0.0]))


def test_going_around_from_a_picture_is_the_orbit_of_its_camera():
    poses = ring(np.array([0.4, 1.5, 0.9, 2.0, 1.2, 0.3, 1.1, 0.6]))
    source = SimpleNamespace(
        starts=np.array([0, 3, 11]),
        cameras=lambda rows: Cameras(np.concatenate([poses[5:], poses])[rows], None),
    )
    for picture in (0, 4):
        centre, up = how_camera_stands(source, 3 + picture)
        order = [picture, *(i for i in range(8) if i != picture)]  # an orbit begins at the first
        path = orbit(poses[order], 6)
        for step in range(6):
            moved = poses[picture] @ beside(centre, up, step * np.pi / 3, 0.0)
            np.testing.assert_allclose(moved, path[step], atol=1e-5)
        lifted = poses[picture] @ beside(centre, up, 0.0, np.pi / 6)
        assert lifted[1, 3] > poses[picture][1, 3]  # over the object, and nearer to nothing
        apart = (np.linalg.norm(x[:3, 3] - [0, 0.2, 0]) for x in (lifted, poses[picture]))
        np.testing.assert_allclose(*apart, rtol=1e-5)


def test_where_a_camera_isn_t_known_it_stands_as_all_do_in_the_mean():
    poses = ring(np.full(8, 1.0))  # on a level ring all stand alike
    source = SimpleNamespace(
        starts=np.array([0, 8]), cameras=lambda rows: Cameras(poses[rows], None)
    )
    centre, up = how_cameras_stand(source)
    np.testing.assert_allclose(centre, [0, 0, np.hypot(2, 0.8)], atol=1e-5)
    np.testing.assert_allclose(up, how_camera_stands(source, 5)[1], atol=1e-5)


def playground_of(model, folder):
    with model.parts.config.unlocked():
        model.parts.config.apply.update(codes=100, num_images=2, num_steps=2)
    train, test = (experiment.open_data(model.parts, split) for split in ("train", "test"))
    return Playground(model, Studio(model, train, test, folder))


@pytest.fixture(scope="module")
def playground(model, tmp_path_factory):
    return playground_of(model, tmp_path_factory.mktemp("none"))


def test_the_page_turns_the_camera(playground):
    assert playground.setup()["turns"]

    def last(**request):
        return list(playground.draw({"a": "test0"} | request))[-1]

    own = last()
    assert last(camera={"turn": 0, "lift": 0}) == own
    assert last(camera={"turn": 60, "lift": 0}) != own != last(camera={"turn": 0, "lift": 30})
    for wrong in ({"turn": 0}, {"turn": 0, "lift": 61}, {"turn": "0", "lift": 0}, 3):
        with pytest.raises(InputError, match="camera"):
            last(camera=wrong)


def test_the_page_turns_the_camera_of_an_upright_model(upright, tmp_path):
    model = soda_jax.load(str(upright))
    playground = playground_of(model, tmp_path)

    def last(**request):
        return list(playground.draw({"a": "test1"} | request))[-1]["picture"]

    own, turned = last(), last(camera={"turn": 60, "lift": 0})
    assert last(camera={"turn": 0, "lift": 0}) == own != turned
    kept = last(keep_noise=True)
    assert kept not in (own, turned)
    with pytest.raises(InputError, match="needs each picture's camera"):
        playground.upload(b"", "x.png")


def test_a_person_drags_the_picture(playground):
    pytest.importorskip("starlette")
    with serving(playground) as site, browser() as window:
        from selenium.webdriver import ActionChains

        window.get(site)
        assert wait_for(lambda: window.find_element("id", "turns").is_displayed())

        def drag(x, y):
            shown = window.find_element("id", "result")
            ActionChains(window).drag_and_drop_by_offset(shown, x, y).perform()

        def camera():
            return window.execute_script("return state.camera")

        own = change(window, lambda: window.find_elements("css selector", "#strip img")[1].click())
        turned = change(window, lambda: drag(80, 0))
        assert camera() == {"turn": -40, "lift": 0}
        for _ in range(3):
            change(window, lambda: drag(0, 100))
        assert camera() == {"turn": -40, "lift": 60}, "no camera goes over the top"
        back = change(window, lambda: window.find_element("id", "reset").click())
        assert camera() == {"turn": 0, "lift": 0} and turned not in (own, back)


def test_references_take_the_most_alike_cameras():
    angles = np.radians([0, 40, 90])
    places = np.stack([2 * np.cos(angles), np.zeros(3), 2 * np.sin(angles)], -1)
    poses = cameras.look_at(places, np.zeros(3), np.array([0.0, 1.0, 0.0]))
    pictures = np.arange(3, dtype=np.uint8)[None, :, None, None, None] * np.ones(
        (1, 1, 2, 2, 3), np.uint8
    )
    nearest = nearest_source(pictures, poses[None], poses[None][:, ::-1], 3)
    np.testing.assert_array_equal(nearest[0, :, 0, 0, 0], [2, 1, 0])
    nearest = nearest_source(pictures, poses[None], poses[None][:, ::-1], 2)
    np.testing.assert_array_equal(nearest[0, :, 0, 0, 0], [1, 1, 0])
    many = np.repeat(pictures[0], 32, axis=0)
    mean = mean_of_nearest(many, np.repeat(poses, 32, axis=0), poses[None, 1:])
    np.testing.assert_array_equal(mean[0, :, 0, 0, 0], [1, 2])


def test_the_command_draws_and_measures(workdir):
    config = tiny(f"--config.novel_views.compare=('{workdir}',)", "--config.novel_views.averaged=2")
    page = pathlib.Path(novel_views(config, str(workdir)))
    values = json.loads((page.parent / "novel_views.json").read_text())
    rows = values["rows"]
    assert {
        "from 1", "from 2", "nearest of 1 sources", "nearest of 2 sources", "no z",
        "mean picture of the pose", f"{workdir}, from 2", "from 2, mean of 2",
    } <= set(rows)  # fmt: skip
    assert rows["from 2"] == rows[f"{workdir}, from 2"] and rows["from 1"] != rows["no z"]
    assert sum(row["views"] for row in values["angles"]) == 8
    beside = {"from 1", "nearest of 1 sources", f"{workdir}, from 1", "no z"}
    for name in beside | {"mean picture of the pose"}:
        parts = [row["scores"][name]["PSNR"] * row["views"] for row in values["angles"]]
        assert sum(parts) / 8 == pytest.approx(rows[name]["PSNR"]), name
    assert len(values["poses"]) == 3 and values["objects"] == 4
    assert (page.parent / "views.png").exists() and (page.parent / "orbit.gif").exists()


def test_objects_whose_cameras_look_in_parallel_have_no_orbit(workdir, tmp_path):
    model = pretrained.restore(tiny(), str(workdir))
    views = Views(model, experiment.open_data(model.parts, "test"))
    poses = np.tile(np.eye(4, dtype=np.float32), (4, 4, 1, 1))
    poses[..., 0, 3] = np.arange(4)
    views.source_cameras = views.source_cameras._replace(pose=poses[:, :2])
    views.target_cameras = views.target_cameras._replace(pose=poses[:, 2:])
    assert draw_orbits(views, tmp_path) is None and not list(tmp_path.iterdir())


def test_the_mean_is_that_of_pictures_from_different_noise(workdir):
    model = pretrained.restore(tiny(), str(workdir))
    views = Views(model, experiment.open_data(model.parts, "test"))
    first, second = (views.draw(model, 1, seed=seed).astype(float) for seed in (0, 1))
    assert np.abs(first - second).max() > 1
    mean = views.draw_mean(1, 2)
    assert np.abs(mean - (first + second) / 2).max() <= 0.5
    errors = [np.square(x - views.targets).mean() for x in (mean, first, second)]
    assert errors[0] < (errors[1] + errors[2]) / 2
