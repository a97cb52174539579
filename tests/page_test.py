import re

from soda_jax import page


def shades(html):
    return [float(x) for x in re.findall(r"rgba\(31,119,180,([\d.]+)\)", html)]


def test_a_heat_map_is_dark_near_high_whichever_end_that_is():
    rows = {"a": [0.0, 0.5, 1.0], "b": [-1.0, 2.0, float("nan")]}
    up = page.heatmap("", ["x", "y", "z"], rows, low=0.0, high=1.0)
    assert shades(up) == [0, 0.5, 1, 0, 1]
    down = page.heatmap("", ["x", "y", "z"], rows, low=1.0, high=0.0)
    assert shades(down) == [1, 0.5, 0, 1, 0]
    assert shades(page.heatmap("", ["x"], {"a": [3.0]}, low=3.0, high=3.0)) == [0]
    sized = page.heatmap("", ["x", "y"], {"a": [-1.0, 0.5]}, low=0, high=1, form="+.1f", sign=False)
    assert shades(sized) == [1, 0.5] and ">-1.0<" in sized
    assert "<td></td>" in up  # of the NaN


def test_names_cannot_write_into_the_page():
    for html in (
        page.table("<i>", ["<b>"], {"<u>": ["1"]}),
        page.heatmap("<i>", ["<b>"], {"<u>": [1.0]}, low=0, high=1),
        page.chart({"<u>": [(0, 1.0), (1, 2.0)]}),
        page.details("<i>", "<u>"),
    ):
        assert not re.search("<[ibu]>", html)


def test_a_chart_marks_the_best_point_of_each_line():
    series = {"up": [(0, 1.0), (10, 3.0), (20, 2.0)], "flat": [(0, 0.5), (20, 0.5)]}
    html = page.chart(series, best="high")
    assert "up 2, best 3 at 10" in html and html.count("<circle") == 2
    assert "best 1 at 0" in page.chart(series, best="low")
    assert "<circle" not in page.chart(series)
    lines = re.findall(r'points="([^"]+)"', html)
    up = [tuple(map(float, point.split(","))) for point in lines[0].split()]
    assert up[1][1] < up[2][1] < up[0][1], "larger values are higher up"
    assert up[0][0] < up[1][0] < up[2][0]
