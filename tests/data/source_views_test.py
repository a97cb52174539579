"""Folders and files of posed pictures: each layout gives the cameras that were written."""

import json

import numpy as np
import pytest
from PIL import Image

from soda_jax.data import cameras, records
from soda_jax.data.sources import open_source

SIZE, FOCAL, VIEWS = 8, 10.0, 4


def poses(number):
    random = np.random.RandomState(number)
    places = random.normal(size=(VIEWS, 3)) + np.array([0, 0.1, 0])
    places *= 2 / np.linalg.norm(places, axis=1, keepdims=True)
    return cameras.look_at(places, np.zeros(3), np.array([0.0, 1.0, 0.0]))


def pictures(number):
    return np.random.RandomState(number).randint(0, 256, (VIEWS, SIZE, SIZE, 3)).astype(np.uint8)


def save(folder, number, names):
    folder.mkdir(parents=True)
    for name, picture in zip(names, pictures(number), strict=True):
        Image.fromarray(picture).save(folder / name)


def write_srn(root, name, number):
    folder = root / name
    save(folder / "rgb", number, [f"{i:06d}.png" for i in range(VIEWS)])
    (folder / "pose").mkdir()
    for i, pose in enumerate(poses(number)):
        text = " ".join(f"{value:.8g}" for value in pose.ravel())
        (folder / "pose" / f"{i:06d}.txt").write_text(text)
    text = f"{FOCAL} {SIZE / 2} {SIZE / 2} 0.\n0. 0. 0.\n1.\n{SIZE} {SIZE}\n"
    (folder / "intrinsics.txt").write_text(text)


def write_nmr(root, name, number):
    folder = root / name
    save(folder / "image", number, [f"{i:04d}.png" for i in range(VIEWS)])
    lens = np.diag([2 * FOCAL / SIZE, 2 * FOCAL / SIZE, 1, 1])
    held = {}
    for i, pose in enumerate(poses(number)):
        held |= {f"world_mat_{i}": np.linalg.inv(pose)[:3], f"world_mat_inv_{i}": pose[:3]}
        held[f"camera_mat_{i}"] = lens
    np.savez(folder / "cameras.npz", **held)


def write_transforms(root, name, number):
    folder = root / name
    save(folder / "images", number, [f"r_{i}.png" for i in range(VIEWS)])
    frames = [
        {"file_path": f"./images/r_{i}", "transform_matrix": (pose * [1, -1, -1, 1]).tolist()}
        for i, pose in enumerate(poses(number))
    ]
    angle = 2 * np.arctan(SIZE / 2 / FOCAL)
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))


WRITERS = {"srn": write_srn, "nmr": write_nmr, "transforms": write_transforms}


def opened(layout, path, split="all", size=SIZE):
    return open_source(layout, split, image_size=size, channels=3, path=str(path))


@pytest.fixture(params=WRITERS)
def layout(request):
    return request.param


def test_every_layout_gives_pictures_and_cameras(layout, tmp_path):
    for number, name in enumerate(("cups/a", "cups/b", "mugs/c")):
        WRITERS[layout](tmp_path, name, number)
    source = opened(layout, tmp_path)
    assert isinstance(source, records.PosedSource) and len(source) == 3 * VIEWS
    np.testing.assert_array_equal(source.starts, [0, 4, 8, 12])
    assert source.class_names == ("cups", "mugs")
    np.testing.assert_array_equal(source.labels(np.array([0, 7, 8])), [0, 0, 1])
    for number in range(3):
        rows = np.arange(VIEWS) + number * VIEWS
        np.testing.assert_array_equal(source.images(rows), pictures(number))
        seen = source.cameras(rows)
        np.testing.assert_allclose(seen.pose, poses(number), atol=1e-5)
        lens = [FOCAL / SIZE, FOCAL / SIZE, 0.5, 0.5]
        np.testing.assert_allclose(seen.intrinsics, np.tile(lens, (VIEWS, 1)), atol=1e-5)
    # A picture's cameras can be asked for in the shape of a batch of views.
    assert source.cameras(np.array([[0, 1], [5, 6]])).pose.shape == (2, 2, 4, 4)


def test_folders_and_lists_name_the_splits(tmp_path):
    write_srn(tmp_path, "cars_train/a", 0)
    write_srn(tmp_path, "cars_test/b", 1)
    np.testing.assert_array_equal(opened("srn", tmp_path, "test").images([0])[0], pictures(1)[0])
    nmr = tmp_path / "nmr"
    for number, name in enumerate("ab"):
        write_nmr(nmr, f"0269/{name}", number)
    (nmr / "0269" / "softras_train.lst").write_text("b\n")
    np.testing.assert_array_equal(opened("nmr", nmr, "train").images([0])[0], pictures(1)[0])
    # A split that isn't there is no tenth of another one.
    with pytest.raises(ValueError, match="no split 'test'; there is: train"):
        opened("nmr", nmr, "test")
    with pytest.raises(ValueError, match="no split 'val'; there is: test, train"):
        opened("srn", tmp_path, "val")
    single = tmp_path / "lego"
    write_transforms(tmp_path, "lego", 2)
    (single / "transforms.json").rename(single / "transforms_train.json")
    assert len(opened("transforms", single, "train")) == VIEWS


def test_a_category_has_one_number_in_all_splits_and_two_sets_are_not_mixed(tmp_path):
    for name in ("cars_train/a/0", "cars_train/b/1", "cars_train/c/2", "cars_test/a/3",
                 "cars_test/c/4"):  # fmt: skip
        write_srn(tmp_path / "one", name, 0)
    train, test = (opened("srn", tmp_path / "one", split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(test.labels(np.array([0, VIEWS])), [0, 2])
    write_srn(tmp_path / "one", "chairs_train/a/0", 0)
    with pytest.raises(ValueError, match="cars_train and chairs_train are both the split 'train'"):
        opened("srn", tmp_path / "one", "train")


def test_objects_may_be_links_and_a_split_may_have_a_name_of_its_own(tmp_path):
    write_srn(tmp_path / "kept", "a", 0)
    (tmp_path / "set" / "cars_train_small").mkdir(parents=True)
    (tmp_path / "set" / "cars_train_small" / "a").symlink_to(tmp_path / "kept" / "a")
    assert len(opened("srn", tmp_path / "set", "train_small")) == VIEWS


def test_a_posed_picture_is_not_turned_and_a_frame_has_its_own_lens(tmp_path):
    """Cameras are of the pixels as they are stored."""
    write_transforms(tmp_path, "cup", 0)
    path = tmp_path / "cup" / "transforms.json"
    turned = Image.Exif()
    turned[0x0112] = 6
    for file in (tmp_path / "cup" / "images").iterdir():
        Image.open(file).save(file, exif=turned)
    np.testing.assert_array_equal(opened("transforms", tmp_path).images(np.arange(4)), pictures(0))
    held = json.loads(path.read_text())
    plain = [dict(frame) for frame in held["frames"]]
    for number, frame in enumerate(held["frames"]):
        frame["fl_x"] = FOCAL + number
    path.write_text(json.dumps(held))
    lens = opened("transforms", tmp_path).cameras(np.arange(4)).intrinsics[:, 0]
    np.testing.assert_allclose(lens, (FOCAL + np.arange(4)) / SIZE, rtol=1e-6)
    path.write_text(json.dumps(held | {"k1": 1e-3, "p2": -1e-4}))  # less than shows
    assert len(opened("transforms", tmp_path)) == VIEWS
    for fields, said in (
        ({"camera_model": "OPENCV_FISHEYE"}, "fisheye"),
        ({"camera_angle_x": 0, "frames": held["frames"][:0]}, "no frames"),
        ({"h": 0}, "a picture of 8 x 0 pixels"),
        ({"fl_x": 10, "w": 0, "frames": plain}, "a picture of 0 x 8 pixels"),
        ({"fl_x": -10, "frames": plain}, "the lens of view 0 has the focal lengths -1.25"),
        ({"k1": -0.3, "k2": 0.0, "p1": 0.01}, r"distorts \(k1 = -0.3, p1 = 0.01\)"),
        ({"w": "wide"}, "could not convert"),
    ):
        path.write_text(json.dumps(held | fields))
        with pytest.raises(ValueError, match=said):
            opened("transforms", tmp_path)


def test_a_wide_picture_of_nmr_keeps_the_camera_of_its_middle(tmp_path):
    write_nmr(tmp_path, "a/cup", 0)
    for file in (tmp_path / "a" / "cup" / "image").iterdir():
        Image.new("RGB", (2 * SIZE, SIZE)).save(file)
    lens = opened("nmr", tmp_path).cameras([0]).intrinsics[0]
    np.testing.assert_allclose(lens, [2 * FOCAL / SIZE, FOCAL / SIZE, 0.5, 0.5], atol=1e-5)


def test_a_wide_picture_keeps_the_camera_of_its_middle(tmp_path):
    """What is cut to a square keeps its rays: the principal point stays in the middle."""
    write_transforms(tmp_path, "cup", 0)
    for file in (tmp_path / "cup" / "images").iterdir():
        Image.new("RGB", (2 * SIZE, SIZE)).save(file)
    lens = opened("transforms", tmp_path).cameras([0]).intrinsics[0]
    focal = SIZE / (SIZE / 2 / FOCAL)  # of the same angle over twice the width
    np.testing.assert_allclose(lens, [focal / SIZE, focal / SIZE, 0.5, 0.5], atol=1e-5)


def test_posed_arrays(tmp_path):
    images = np.stack([pictures(n) for n in range(3)])
    matrix = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    pose = np.stack([poses(n) for n in range(3)])
    held = {
        "images": images, "cam2world": pose * [1, -1, -1, 1], "K": matrix, "convention": "opengl",
        "labels": np.array([2, 0, 1]), "split": np.array(["train", "test", "train"]),
        "factors": np.arange(3 * VIEWS).reshape(3, VIEWS, 1), "factor_names": np.array(["n"]),
    }  # fmt: skip
    np.savez(tmp_path / "x.npz", **held)
    source = opened("posed_arrays", tmp_path / "x.npz", "train")
    np.testing.assert_array_equal(source.images(np.arange(4, 8)), images[2])
    np.testing.assert_allclose(source.cameras(np.arange(4, 8)).pose, pose[2], atol=1e-6)
    np.testing.assert_array_equal(source.labels(np.array([0, 4])), [2, 1])
    np.testing.assert_array_equal(source.factors(np.array([5])), [[9]])
    held["convention"] = "opencv"
    np.savez(tmp_path / "y.npz", **held)
    with pytest.raises(ValueError, match="object 0: all cameras look away"):
        opened("posed_arrays", tmp_path / "y.npz", "train")
    held["convention"] = "opengl"
    for wrong, said in (
        ({"labels": np.array([0.9, 1, 2])}, "one integer for each of 3 objects"),
        ({"labels": np.arange(12).reshape(3, 4)}, "one integer for each of 3 objects"),
        ({"split": np.array(["train"])}, "a name for each of 3"),
        ({"factors": held["factors"] * 0.5}, "expected integers"),
        ({"factor_names": np.array(["n", "m"])}, "2 factor names"),
        ({"K": np.zeros((3, 3))}, "object 0: the lens of view 0 has the focal lengths 0 and 0"),
    ):
        np.savez(tmp_path / "wrong.npz", **held | wrong)
        with pytest.raises(ValueError, match=said):
            opened("posed_arrays", tmp_path / "wrong.npz", "train")
    del held["cam2world"]
    np.savez(tmp_path / "z.npz", **held)
    with pytest.raises(ValueError, match="no array 'cam2world'"):
        opened("posed_arrays", tmp_path / "z.npz", "train")


def test_a_picture_without_a_camera_is_named(layout, tmp_path):
    WRITERS[layout](tmp_path, "cup", 0)
    folder = tmp_path / "cup"
    if layout == "srn":
        (folder / "pose" / "000002.txt").unlink()
        told = "000002.png has no camera"
    elif layout == "nmr":
        Image.new("RGB", (SIZE, SIZE)).save(folder / "image" / "0004.png")
        told = "0004.png has no camera"
    else:
        held = json.loads((folder / "transforms.json").read_text())
        del held["camera_angle_x"]
        (folder / "transforms.json").write_text(json.dumps(held))
        told = "pictures without a camera"
    with pytest.raises(ValueError, match=told):
        opened(layout, tmp_path)


def test_a_pose_that_is_no_rotation_is_named(tmp_path):
    write_srn(tmp_path, "cup", 0)
    file = tmp_path / "cup" / "pose" / "000001.txt"
    file.write_text(file.read_text().replace("-", "", 1).replace(" ", " 2", 1))
    with pytest.raises(ValueError, match="cup: the pose of view 1 is"):
        opened("srn", tmp_path)


@pytest.mark.parametrize("lens", ["0 4 4", "nan 4 4", "-10 4 4"])
def test_a_lens_that_no_camera_has_is_named(lens, tmp_path):
    write_srn(tmp_path, "cup", 0)
    file = tmp_path / "cup" / "intrinsics.txt"
    file.write_text(f"{lens} 0.\n0. 0. 0.\n1.\n8 8\n")
    with pytest.raises(ValueError, match="cup: the lens of view 0 has the focal lengths"):
        opened("srn", tmp_path)
    file.write_text("10 4 4 0.\n0. 0. 0.\n1.\n0 0\n")
    with pytest.raises(ValueError, match="intrinsics.txt: the lens of a picture of 0 x 0"):
        opened("srn", tmp_path)


def test_a_category_with_the_name_of_a_split_is_asked_about(tmp_path):
    for name in ("bus/a", "train/b"):
        write_srn(tmp_path, name, 0)
    with pytest.raises(ValueError, match="is 'train' the split, or a category as 'bus' is"):
        opened("srn", tmp_path, "train")
    assert opened("srn", tmp_path).class_names == ("bus", "train")


def test_a_picture_of_nmr_without_a_number_is_named(tmp_path):
    write_nmr(tmp_path, "cup", 0)
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "cup" / "image" / "mean.png")
    with pytest.raises(ValueError, match="mean.png has no number"):
        opened("nmr", tmp_path)


def test_other_cameras_of_an_npz_are_other_data(tmp_path):
    def fingerprint(focal):
        matrix = np.array([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1]])
        np.savez(tmp_path / "x.npz", images=pictures(0)[None], cam2world=poses(0)[None], K=matrix)
        return opened("posed_arrays", tmp_path / "x.npz").fingerprint

    assert fingerprint(FOCAL) == fingerprint(FOCAL) != fingerprint(2 * FOCAL)


def test_other_cameras_are_other_data(layout, tmp_path):
    """A run isn't resumed under cameras that it didn't begin with."""
    WRITERS[layout](tmp_path, "cup", 0)
    before = opened(layout, tmp_path).fingerprint
    assert opened(layout, tmp_path).fingerprint == before
    turn = np.diag([-1.0, 1.0, -1.0, 1.0])
    if layout == "srn":
        for number, pose in enumerate(poses(0)):
            text = " ".join(f"{value:.8g}" for value in (turn @ pose).ravel())
            (tmp_path / "cup" / "pose" / f"{number:06d}.txt").write_text(text)
    elif layout == "nmr":
        file = tmp_path / "cup" / "cameras.npz"
        held = dict(np.load(file))
        np.savez(file, **held | {f"camera_mat_{i}": np.diag([3.0, 3, 1, 1]) for i in range(VIEWS)})
    else:
        file = tmp_path / "cup" / "transforms.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"camera_angle_x": 0.7}))
    assert opened(layout, tmp_path).fingerprint != before


def test_nothing_where_objects_are_expected(layout, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of objects"):
        opened(layout, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no objects there"):
        opened(layout, tmp_path)
