"""The three-way split of an image folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrkkd.datasets import ImageFolder

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools' / 'dataset_tools')
sys.path.insert(0, TOOLS)

import image_folder_subset as tool  # noqa: E402

sys.path.remove(TOOLS)

CLASSES = ('ant', 'bee', 'cow')
OPTIONS = ('--train', '5', '--choice', '2', '--extra-val', '3')


@pytest.fixture
def source(tmp_path):
    """Three classes of 10 training and 2 validation images, all unlike."""
    level = 0
    for name in CLASSES:
        for split, number in (('train', 10), ('val', 2)):
            folder = tmp_path / 'full' / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                level += 1
                pixels = np.full((2, 2, 3), level, np.uint8)
                Image.fromarray(pixels).save(folder / f'{i}.png')
    return tmp_path / 'full'


def make(source, out, *options):
    return tool.make_subset(tool.parse_args([str(source), str(out), *options]))


def files(folder):
    """Relative names of the images and their bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*.png'))
    }


def split_of(folder, split):
    return {
        name: data
        for name, data in files(folder).items()
        if name.startswith(f'{split}/')
    }


def test_counts_are_those_asked_for(source, tmp_path):
    record, written = make(source, tmp_path / 'out', *OPTIONS)
    assert written
    # Three classes: 5, 2 and 2 + 3 images of each.
    assert record['counts'] == dict(train=15, choice=6, val=15)
    for split, number in record['counts'].items():
        assert len(ImageFolder(str(tmp_path / 'out'), split)) == number
    assert json.loads((tmp_path / 'out/split.json').read_text()) == record


def test_hidden_files_are_no_images(source, tmp_path):
    expected, _ = make(source, tmp_path / 'plain', *OPTIONS)
    for hidden in ('._0.png', '.thumbs/0.png'):
        path = source / 'train' / 'ant' / hidden
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'no image')
    assert make(source, tmp_path / 'out', *OPTIONS)[0] == expected
    # A folder above may be hidden.
    hidden = source.rename(tmp_path / '.full') / 'train' / 'bee'
    assert len(tool.images_of(hidden)) == 10


def test_no_image_is_in_two_splits(source, tmp_path):
    make(source, tmp_path / 'out', *OPTIONS)
    contents = list(files(tmp_path / 'out').values())
    assert len(set(contents)) == len(contents) == 36


def test_the_original_validation_set_is_all_there(source, tmp_path):
    make(source, tmp_path / 'out', *OPTIONS)
    val = split_of(tmp_path / 'out', 'val')
    for name, data in split_of(source, 'val').items():
        assert val[name] == data
    assert sum('/train_' in name for name in val) == 9


def test_the_validation_set_does_not_depend_on_the_other_counts(
    source, tmp_path
):
    make(source, tmp_path / 'a', '--extra-val', '3')
    make(source, tmp_path / 'b', *OPTIONS, '--classes', '2')
    a, b = (split_of(tmp_path / part, 'val') for part in 'ab')
    assert b == {name: a[name] for name in a if '/cow/' not in name}
    # A smaller training set is a part of the larger one.
    train = split_of(tmp_path / 'b', 'train')
    make(source, tmp_path / 'c', *OPTIONS[2:], '--train', '4')
    assert split_of(tmp_path / 'c', 'train').items() & train.items()


def test_another_seed_holds_out_others(source, tmp_path):
    make(source, tmp_path / 'a', *OPTIONS)
    make(source, tmp_path / 'b', *OPTIONS, '--seed', '1')
    assert files(tmp_path / 'a') != files(tmp_path / 'b')


def test_without_counts_everything_else_is_for_training(source, tmp_path):
    record, _ = make(source, tmp_path / 'out', '--extra-val', '1')
    assert record['counts'] == dict(train=27, val=9)
    assert not (tmp_path / 'out' / 'choice').exists()


def test_classes_are_chosen_by_number_or_by_name(source, tmp_path):
    first, _ = make(source, tmp_path / 'a', '--classes', '2')
    named, _ = make(source, tmp_path / 'b', '--classes', 'cow', 'ant')
    assert first['classes'] == ['ant', 'bee']
    assert named['classes'] == ['ant', 'cow']


def test_a_complete_folder_is_kept(source, tmp_path):
    record, _ = make(source, tmp_path / 'out', *OPTIONS)
    again, written = make(source, tmp_path / 'out', *OPTIONS)
    assert not written and again == record


@pytest.mark.parametrize('change', ['missing', 'foreign', 'options'])
def test_anything_else_is_not_overwritten(source, tmp_path, change):
    out = tmp_path / 'out'
    make(source, out, *OPTIONS)
    options = OPTIONS
    if change == 'missing':
        next((out / 'train' / 'ant').iterdir()).unlink()
    elif change == 'foreign':
        (out / 'notes.txt').write_text('mine')
    else:
        options = (*OPTIONS, '--seed', '7')
    before = files(out)
    with pytest.raises(FileExistsError, match='not empty'):
        make(source, out, *options)
    assert files(out) == before


def test_an_interrupted_run_is_begun_anew(source, tmp_path):
    partial = tmp_path / 'out.partial'
    partial.mkdir()
    (partial / 'split.json').write_text('{}')
    (partial / 'half.png').write_text('')
    make(source, tmp_path / 'out', *OPTIONS)
    assert not partial.exists()
    assert len(files(tmp_path / 'out')) == 36


def test_a_foreign_folder_in_the_way_is_not_removed(source, tmp_path):
    (tmp_path / 'out.partial').mkdir()
    (tmp_path / 'out.partial' / 'mine').write_text('')
    with pytest.raises(FileExistsError, match='move it'):
        make(source, tmp_path / 'out', *OPTIONS)
    assert (tmp_path / 'out.partial' / 'mine').exists()


def test_links_hold_the_same_images(source, tmp_path):
    make(source, tmp_path / 'a', *OPTIONS)
    make(source, tmp_path / 'b', *OPTIONS, '--symlink')
    assert files(tmp_path / 'a') == files(tmp_path / 'b')
    assert all(path.is_symlink() for path in (tmp_path / 'b').rglob('*.png'))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (('--train', '0'), '--train must be at least 1, got 0'),
        (('--choice', '-1'), '--choice must be at least 0, got -1'),
        (('--classes', '4'), r'--classes must be in \[2, 3\]'),
        (('--classes', 'dog'), 'dog'),
        (('--train', '9', '--extra-val', '3'), '10 training images'),
    ],
)
def test_options_that_do_not_fit_are_named(source, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        make(source, tmp_path / 'out', *options)
    assert not (tmp_path / 'out').exists()


def test_splits_with_other_classes_are_refused(source, tmp_path):
    (source / 'val' / 'ant').rename(source / 'val' / 'ape')
    with pytest.raises(ValueError, match='ant, ape'):
        make(source, tmp_path / 'out')


def test_the_command_line_says_what_it_did_in_one_line(source, tmp_path):
    command = [
        sys.executable,
        f'{TOOLS}/image_folder_subset.py',
        str(source),
        str(tmp_path / 'out'),
        *OPTIONS,
    ]
    for end in ('written', 'already complete, kept'):
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0 and run.stdout.endswith(f'{end}\n')
    run = subprocess.run([*command[:-1], '99'], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith('image_folder_subset: class ant has 10')
