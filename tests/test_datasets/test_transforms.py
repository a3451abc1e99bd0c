"""The strong view: what it draws and what it does to the pixels."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import TRANSFORMS as MMPRETRAIN
from PIL import Image

from mmrkkd.cli import move_data_root
from mmrkkd.datasets import StrongAugment, transforms

GREY = (125, 123, 114)


def noise(seed=0, size=32):
    rng = np.random.RandomState(seed)
    low, high = sorted(rng.randint(0, 256, 2))
    return rng.randint(low, high + 1, (size, size, 3)).astype(np.uint8)


def operation(name):
    return next(entry for entry in transforms.OPERATIONS if entry[0] == name)


def augmented(img, **kwargs):
    return StrongAugment(**kwargs)(dict(img=img.copy()))['img']


@pytest.fixture
def only(monkeypatch):
    """Leaves one operation, at one magnitude."""

    def leave(name, magnitude):
        entry = (*operation(name)[:2], magnitude, magnitude)
        monkeypatch.setattr(transforms, 'OPERATIONS', (entry,))

    return leave


def test_there_are_fourteen_operations():
    assert len({entry[0] for entry in transforms.OPERATIONS}) == 14


@pytest.mark.parametrize('level', [0, 7, 255])
@pytest.mark.parametrize('name', ['AutoContrast', 'Equalize'])
def test_a_plain_image_has_no_contrast_to_stretch(only, name, level):
    only(name, 0.5)
    img = np.full((8, 8, 3), level, np.uint8)
    assert (augmented(img, cutout=0) == level).all()


def test_autocontrast_stretches_each_channel_to_the_full_range(only):
    only('AutoContrast', 0.5)
    img = np.zeros((1, 3, 3), np.uint8)
    # 50, 75, 150 -> 0, 25 / 100 * 255 = 63.75, 255; others are plain.
    img[0, :, 1] = 50, 75, 150
    out = augmented(img, num_ops=1, cutout=0)
    assert out[0, :, 1].tolist() == [0, 63, 255]
    assert not out[..., [0, 2]].any()


def test_posterizing_keeps_the_upper_bits(only):
    only('Posterize', 4.9)
    img = np.full((2, 2, 3), 0b10110111, np.uint8)
    assert (augmented(img, cutout=0) == 0b10110000).all()


def test_solarizing_inverts_from_the_threshold_on(only):
    only('Solarize', 100.0)
    img = np.array([99, 100, 255], np.uint8).repeat(3).reshape(1, 3, 3)
    out = augmented(img, num_ops=1, cutout=0)
    assert out[0, :, 0].tolist() == [99, 155, 0]


def test_brightness_of_one_half_halves_every_level(only):
    only('Brightness', 0.5)
    img = np.full((4, 4, 3), 200, np.uint8)
    assert (augmented(img, num_ops=1, cutout=0) == 100).all()
    # Two operations are drawn with replacement: a quarter remains.
    assert (augmented(img, num_ops=2, cutout=0) == 50).all()


def test_translation_is_a_share_of_the_side_and_uncovers_black(only):
    only('TranslateX', 0.25)
    img = noise(3, 8)
    # Pixel x of the result is pixel x + 0.25 * 8 of the image.
    want = np.zeros_like(img)
    want[:, :6] = img[:, 2:]
    np.testing.assert_array_equal(augmented(img, num_ops=1, cutout=0), want)


def test_vertical_translation_moves_rows(only):
    only('TranslateY', -0.25)
    img = noise(4, 8)
    want = np.zeros_like(img)
    want[2:] = img[:6]
    np.testing.assert_array_equal(augmented(img, num_ops=1, cutout=0), want)


@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_greyness_follows_the_channel_order(only, order):
    only('Color', 0.0)
    # Pure red; its grey is 0.299 * 255 = 76.2.
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0 if order == 'rgb' else 2] = 255
    out = augmented(red, num_ops=1, cutout=0, channel_order=order)
    assert (out == 76).all()


@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_the_square_has_its_colour_in_the_channel_order(order):
    step = -1 if order == 'bgr' else 1
    for seed in range(50):
        np.random.seed(seed)
        out = augmented(
            np.zeros((32, 32, 3), np.uint8), num_ops=0, channel_order=order
        )
        painted = out.any(-1)
        rows, columns = np.flatnonzero(painted.any(1)), painted.any(0).sum()
        assert len(rows) <= 16 and columns <= 16
        assert painted.sum() == len(rows) * columns
        assert (out[painted] == GREY[::step]).all()


def test_the_mean_side_is_a_quarter_of_the_image():
    np.random.seed(0)
    sides = []
    for _ in range(2000):
        out = augmented(np.zeros((64, 64, 3), np.uint8), num_ops=0)
        painted = out.any(-1)
        # The side is whole where the square lies inside.
        if painted.any() and not painted[-1].any():
            sides.append(painted.any(1).sum() / 64)
    assert max(sides) <= 0.5
    # U(0, 0.5) has the mean 0.25; squares at the lower edge, more often
    # large ones, are left out above.
    assert 0.21 < np.mean(sides) < 0.26


def test_magnitudes_are_uniform_and_operations_equally_frequent(monkeypatch):
    seen = []

    def spy(number):
        return lambda img, v: seen.append((number, v)) or img

    monkeypatch.setattr(
        transforms,
        'OPERATIONS',
        tuple(
            (name, spy(number), low, high)
            for number, (name, _, low, high) in enumerate(
                transforms.OPERATIONS
            )
        ),
    )
    np.random.seed(0)
    augment = StrongAugment()
    for _ in range(3500):
        augment(dict(img=np.zeros((4, 4, 3), np.uint8)))
    assert len(seen) == 7000
    for number, (_, _, low, high) in enumerate(transforms.OPERATIONS):
        drawn = np.array([v for which, v in seen if which == number])
        # 7000 / 14 = 500; a binomial's deviation is 21.5, five of them.
        assert abs(len(drawn) - 500) < 5 * 21.5
        share = (drawn - low) / (high - low)
        assert share.min() >= 0 and share.max() <= 1
        # Standard error 0.289 / sqrt(500) = 0.013, five of them.
        assert abs(share.mean() - 0.5) < 5 * 0.013


def test_shape_and_type_stay_and_the_seed_decides():
    img = np.concatenate([noise(1), noise(2)], axis=1)
    for seed in range(30):
        np.random.seed(seed)
        once = augmented(img)
        np.random.seed(seed)
        again = augmented(img)
        assert once.shape == img.shape and once.dtype == np.uint8
        assert once.flags.c_contiguous
        np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize(
    ('argument', 'value'),
    [
        ('num_ops', -1),
        ('cutout', 1.5),
        ('cutout', -0.1),
        ('cutout_colour', (1, 2)),
        ('channel_order', 'grb'),
    ],
)
def test_wrong_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        StrongAugment(**{argument: value})


@pytest.mark.parametrize(
    'img', [np.zeros((4, 4)), np.zeros((4, 4, 3), np.float32)]
)
def test_images_that_are_no_colour_bytes_are_refused(img):
    with pytest.raises(TypeError, match='uint8'):
        augmented(img)


def test_it_resolves_from_mmpretrain():
    assert MMPRETRAIN.get('mmrkkd.StrongAugment') is StrongAugment


def write_folder(root, splits=('train', 'val'), each=4, size=32):
    for split in splits:
        for name in ('cat', 'dog'):
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                Image.fromarray(noise(i, size)).save(
                    root / split / name / f'{i}.png'
                )


@pytest.fixture
def mmpretrain_scope():
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


def base(name, root, **changes):
    config = Config.fromfile(f'configs/_base_/datasets/{name}.py')
    move_data_root(config, config.data_root, str(root))
    config.merge_from_dict(
        {f'train_dataloader.{key}': value for key, value in changes.items()}
    )
    return config


@pytest.mark.parametrize('workers', [0, 1])
def test_two_views_of_a_folder_come_as_two_batches(
    tmp_path, mmpretrain_scope, workers
):
    write_folder(tmp_path)
    config = base(
        'image_folder_32_two_views',
        tmp_path,
        batch_size=4,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    batches = list(loader)
    assert len(batches) == 2
    for batch in batches:
        weak, strong = batch['inputs']
        for view in (weak, strong):
            assert isinstance(view, torch.Tensor)
            assert view.shape == (4, 3, 32, 32)
            assert view.dtype == torch.uint8
        assert not torch.equal(weak, strong)
        assert len(batch['data_samples']) == 4
    labels = [s.gt_label.item() for b in batches for s in b['data_samples']]
    assert sorted(labels) == [0] * 4 + [1] * 4


TWO_VIEWS = ['cifar100', 'image_folder_32', 'imagenet', 'tiny_imagenet']


@pytest.mark.parametrize('name', TWO_VIEWS)
def test_the_strong_view_has_the_channel_order_of_the_preprocessor(name):
    config = Config.fromfile(f'configs/_base_/datasets/{name}_two_views.py')
    strong = config.train_pipeline[-2].transforms[1][-1]
    assert strong.type == 'mmrkkd.StrongAugment'
    is_bgr = strong.channel_order == 'bgr'
    assert is_bgr == config.data_preprocessor.to_rgb
    loads = config.train_pipeline[0].type == 'LoadImageFromFile'
    assert loads == is_bgr
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline


@pytest.mark.parametrize(
    ('name', 'size', 'kind'),
    [
        ('cifar100', 32, 'array'),
        ('cifar100_two_views', 32, 'array'),
        ('cifar100_224', 224, 'array'),
        ('tiny_imagenet', 64, 'file'),
        ('tiny_imagenet_two_views', 64, 'file'),
        ('imagenet', 224, 'file'),
        ('imagenet_two_views', 224, 'file'),
        ('image_folder_32', 32, 'file'),
    ],
)
def test_every_base_gives_images_of_its_size(
    tmp_path, mmpretrain_scope, name, size, kind
):
    from mmcv.transforms import Compose

    config = Config.fromfile(f'configs/_base_/datasets/{name}.py')
    pixels = noise(0, 32 if size == 32 else 64)
    sample = dict(img=pixels, gt_label=1)
    if kind == 'file':
        Image.fromarray(pixels).save(tmp_path / 'a.png')
        sample = dict(img_path=str(tmp_path / 'a.png'), gt_label=1)
    for loader in (config.train_dataloader, config.val_dataloader):
        packed = Compose(loader.dataset.pipeline)(dict(sample))
        views = packed['inputs']
        views = views if isinstance(views, list) else [views]
        for view in views:
            assert view.shape == (3, size, size)
        assert loader.collate_fn.type == 'default_collate'
        assert packed['data_samples'].gt_label.item() == 1
    assert config.val_evaluator.topk == (1, 5)
