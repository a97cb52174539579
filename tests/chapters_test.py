import json
import pathlib
import types

import pytest

from soda_jax.chapters import ChaptersFailed, folder_of, run_chapters, write_page
from soda_jax.evaluation.torch_weights import read


def chapter(value):
    """One whose result is `value`, or the error that it raises."""

    def run():
        return value() if callable(value) else value

    return types.SimpleNamespace(run=run, show=lambda found, folder: [f"<p>it found {found}</p>"])


def run(chapters, folder):
    return run_chapters(chapters, lambda chapter: chapter.run(), folder)


def broken():
    return read("/nowhere/weights.pth", "Look on the attic.")


def test_one_that_fails_is_told_and_the_others_are_shown(tmp_path):
    chapters = {"first": chapter(1), "second": chapter(2)}
    assert run(chapters, tmp_path) == []
    assert "it found 1" in pathlib.Path(write_page(tmp_path, "T", "F", chapters)).read_text()

    chapters["first"] = chapter(broken)
    (problem,) = run(chapters, tmp_path)
    assert problem.startswith("first: there is no file of weights at '/nowhere/weights.pth'")
    page = pathlib.Path(write_page(tmp_path, "T", "F", chapters)).read_text()
    assert "it found 1" not in page, "an old result stands in for the one that failed"
    assert "it found 2" in page and json.loads((tmp_path / "second.json").read_text()) == 2
    assert ChaptersFailed([problem]).problems == [problem]


def test_a_page_shows_what_earlier_runs_left(tmp_path):
    chapters = {"first": chapter(1), "second": chapter(2)}
    run({"second": chapters["second"]}, tmp_path)
    run({"first": chapters["first"]}, tmp_path)
    page = pathlib.Path(write_page(tmp_path, "<T>", "<F>", chapters)).read_text()
    assert page.index("it found 1") < page.index("it found 2")
    assert "<T>" not in page and "<F>" not in page


def test_an_error_of_our_own_making_is_not_swallowed(tmp_path):
    def bug():
        raise ValueError("nobody expected this")

    with pytest.raises(ValueError, match="nobody expected this"):
        run({"first": chapter(bug)}, tmp_path)


def test_averaged_and_raw_weights_have_folders_of_their_own(tmp_path):
    ema, raw = (folder_of(str(tmp_path), "evaluation", 7, weights) for weights in ("ema", "raw"))
    assert ema.is_dir() and raw.is_dir() and ema != raw and ema.name == "00000007"
