"""Missing data are told at once; what would work is never refused."""

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10

from mmrkkd.datasets import check_data, inner_datasets

GONE = '/gone/data'
PETREL = dict(backend='petrel')


def loader(**dataset):
    dataset = dict(type='CocoDataset', data_root=GONE, **dataset)
    return Config(dict(train_dataloader=dict(dataset=dataset)))


@pytest.mark.parametrize('key', ['backend_args', 'file_client_args'])
@pytest.mark.parametrize('backend', ['petrel', 'lmdb', 'http'])
def test_data_behind_a_storage_backend_are_not_missing(key, backend):
    storage = {key: dict(backend=backend)}
    check_data(loader(ann_file='a.json', **storage))
    nested = dict(
        type='RandomApply', transforms=[dict(type='Load', **storage)]
    )
    check_data(loader(ann_file='a.json', pipeline=[nested]))


@pytest.mark.parametrize(
    'local', [None, dict(backend='local'), dict(backend='disk'), dict()]
)
def test_the_local_disk_is_no_storage_backend(local):
    with pytest.raises(FileNotFoundError, match='no annotation file /gone'):
        check_data(loader(ann_file='a.json', backend_args=local))


def test_every_file_of_a_list_is_looked_for(tmp_path):
    here = tmp_path / 'here.json'
    here.write_text('{}')
    check_data(loader(ann_file=[str(here)]))
    with pytest.raises(FileNotFoundError, match='/gone/data/b.json'):
        check_data(loader(ann_file=[str(here), 'b.json']))


def test_a_storage_backend_that_is_no_dict_is_named(tmp_path):
    message = r"backend_args .*dict\(backend='petrel'\), got 'petrel'"
    with pytest.raises(TypeError, match=message):
        check_data(loader(ann_file='a.json', backend_args='petrel'))
    pipeline = [dict(type='Load', backend_args='petrel')]
    with pytest.raises(TypeError, match=message):
        check_data(loader(ann_file='a.json', pipeline=pipeline))


def test_paths_may_be_path_objects(tmp_path):
    here = tmp_path / 'here.json'
    here.write_text('{}')
    check_data(loader(data_prefix=tmp_path))
    check_data(loader(data_prefix=dict(img=tmp_path)))
    check_data(loader(ann_file=here))
    check_data(loader(ann_file=[here]))
    for missing in (
        dict(ann_file=tmp_path / 'gone.json'),
        dict(ann_file=[here, tmp_path / 'gone.json']),
        dict(data_prefix=tmp_path / 'gone'),
        dict(data_prefix=dict(img_path=tmp_path / 'gone')),
    ):
        with pytest.raises(FileNotFoundError, match=f'{tmp_path}/gone'):
            check_data(loader(**missing))
    root = loader()
    root.train_dataloader.dataset.data_root = tmp_path
    check_data(root)
    root.train_dataloader.dataset.data_root = tmp_path / 'gone'
    with pytest.raises(FileNotFoundError, match=f'no folder {tmp_path}/gone'):
        check_data(root)


def test_every_inner_data_set_is_looked_for(tmp_path):
    first = dict(type='ImageFolder', data_root=str(tmp_path))
    second = dict(type='ImageFolder', data_root=f'{tmp_path}/second')
    both = dict(
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', times=2, dataset=first), second],
    )
    assert list(inner_datasets(both)) == [first, second]
    config = Config(dict(val_dataloader=dict(dataset=both)))
    with pytest.raises(
        FileNotFoundError, match='val_dataloader: no folder .*/second'
    ):
        check_data(config)
    (tmp_path / 'second').mkdir()
    check_data(config)


def test_a_data_set_that_is_built_already_is_passed_over():
    config = Config(dict(train_dataloader=dict(dataset=[object()])))
    check_data(config)


def test_an_absolute_prefix_takes_the_place_of_the_root(tmp_path):
    check_data(loader(data_prefix=str(tmp_path)))
    check_data(loader(data_prefix=dict(img_path=str(tmp_path))))
    check_data(loader(data_prefix='s3://bucket/images'))
    for prefix in ('train', dict(img='train/')):
        with pytest.raises(FileNotFoundError, match='no folder /gone/data'):
            check_data(loader(data_prefix=prefix))
    with pytest.raises(FileNotFoundError, match='no folder /gone/train'):
        check_data(loader(data_prefix='/gone/train'))


@pytest.mark.parametrize(
    'kind, scope',
    [('CIFAR10', 'mmpretrain'), ('mmpretrain.CIFAR10', None), (CIFAR10, None)],
)
def test_what_is_downloaded_by_default_is_not_missing(kind, scope):
    dataset = dict(type=kind, data_root=GONE, split='train')
    config = Config(
        dict(train_dataloader=dict(dataset=dataset), default_scope=scope)
    )
    check_data(config)
    config.train_dataloader.dataset.download = False
    with pytest.raises(FileNotFoundError, match='no folder /gone/data'):
        check_data(config)


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    config = loader()
    config.train_dataloader.dataset.data_root = '~'
    check_data(config)
