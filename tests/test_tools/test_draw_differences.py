"""The picture of differences, and the tool that draws several."""

import json

import pytest
from conftest import load_tool
from PIL import Image

from mmrkkd.report.difference_figure import Compared, differences_figure

METRIC = 'coco/bbox_mAP'


def row(label, seeds, half_width, images=None):
    """What the summary knows of a method."""
    return dict(
        label=label,
        difference=seeds
        and dict(
            mean=sum(seeds) / len(seeds),
            half_width=half_width,
            by_seed=dict(enumerate(seeds)),
        ),
        over_images=images and dict(low=[images[0]], high=[images[1]]),
    )


ROWS = [
    row('alone', None, None),
    row('kd', [0.01, 0.02], 0.05, (0.4, 2.5)),
    row('crosskd', [0.02, 0.022], 0.004, (1.5, 2.5)),
    row('one', [-0.01], None),
]


def drawn(axis, label):
    """Where on the axis something lies, by its name in the legend."""
    return [
        (round(float(y[0])), [round(float(value), 6) for value in x])
        for line in axis.lines
        if line.get_label() == label
        for x, y in [line.get_data()]
    ]


def test_seeds_means_and_intervals_are_where_they_belong():
    figure = differences_figure([Compared('GFL', ROWS, 'alone', METRIC)])
    (axis,) = figure.axes
    assert axis.get_title() == 'GFL'
    assert axis.get_xlabel() == 'AP minus alone'
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ['kd  +1.50', 'crosskd  +2.10', 'one  -1.00']
    assert drawn(axis, 'each seed') == [
        (0, [1.0, 2.0]),
        (1, [2.0, 2.2]),
        (2, [-1.0]),
    ]
    assert drawn(axis, '95 % over seeds') == [
        (0, [-3.5, 6.5]),
        (1, [1.7, 2.5]),
    ]
    assert drawn(axis, '95 % over images') == [
        (0, [0.4, 2.5]),
        (1, [1.5, 2.5]),
    ]
    # kd: one of its intervals holds 0. Of one run nothing is known.
    assert drawn(axis, 'mean, 0 is outside') == [(1, [2.1])]
    assert drawn(axis, 'mean, an interval holds 0') == [(0, [1.5])]
    assert drawn(axis, 'the one seed') == [(2, [-1.0])]


def test_panels_have_one_range_that_a_wide_interval_does_not_blow_up():
    wide = [row('dkd', [0.0, 0.004], 5.0)]
    figure = differences_figure(
        [
            Compared('a', ROWS, 'alone', METRIC),
            Compared('b', wide, 'kd', METRIC),
        ]
    )
    left, right = (axis.get_xlim() for axis in figure.axes)
    assert left == right
    # Seeds and images reach from -1 to 2.5; a quarter on either side.
    assert left == pytest.approx((-1.875, 3.375))


def test_nothing_to_compare_is_told():
    with pytest.raises(ValueError, match='"GFL" has no method with a seed'):
        differences_figure([Compared('GFL', ROWS[:1], 'alone', METRIC)])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'ablation.json'
    path.write_text(
        json.dumps(dict(rows=ROWS, baseline='alone', metric=METRIC))
    )
    return path


def test_the_tool_draws_several_experiments(file, tmp_path, capsys):
    tool = load_tool('analysis_tools/draw_differences')
    out = tmp_path / 'new' / 'gains.png'
    both = [f'GFL={file}', f'Faster R-CNN={file}']
    assert tool.main([str(out), *both]) == 0
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as image:
        assert image.width > 1000 and len(image.convert('L').getcolors()) > 10


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['gains.txt', 'a={file}'], 'must end with one of .png, .svg, .pdf'),
        (['gains.png', '{file}'], 'must be TITLE=FILE'),
        (['gains.png', 'a={file}.gone'], 'No such file'),
        (['gains.png', 'a={empty}'], 'must be the JSON of tools/ablation.py'),
    ],
)
def test_the_tool_says_what_is_wrong(file, arguments, said, capsys):
    tool = load_tool('analysis_tools/draw_differences')
    empty = file.with_name('empty.json')
    empty.write_text('{}')
    out = file.with_name(arguments[0])
    rest = [text.format(file=file, empty=empty) for text in arguments[1:]]
    assert tool.main([str(out), *rest]) == 1
    assert said in capsys.readouterr().err
    assert not out.exists()
