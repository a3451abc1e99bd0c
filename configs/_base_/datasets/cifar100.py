# CIFAR-100, 64 images a step on one device. Nothing is downloaded: unpack
# cifar-100-python.tar.gz in data_root, or set download=True in the data set.
data_root = 'data/cifar100/'
# Told where the data are missing.
data_source = (
    'cifar-100-python.tar.gz of '
    'https://www.cs.toronto.edu/~kriz/cifar.html, unpacked in data_root; or '
    'train_dataloader.dataset.download=True'
)

data_preprocessor = dict(
    num_classes=100,
    # RGB; mean and standard deviation of the training images, 0 to 255.
    mean=[129.3105, 124.1085, 112.404],
    std=[68.2125, 65.4075, 70.4055],
    # The arrays are RGB already.
    to_rgb=False,
)

train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmrkkd.CIFAR100',
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmrkkd.CIFAR100',
        data_root=data_root,
        split='test',
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
