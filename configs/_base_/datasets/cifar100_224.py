# CIFAR-100 enlarged to 224 pixels for vision transformers, 128 images a step,
# augmented as DeiT is: two policies of RandAugment at magnitude 9 of 10, then
# random erasing. Needs the data of cifar100.py.
data_root = 'data/cifar100/'
# Told where the data are missing.
data_source = (
    'cifar-100-python.tar.gz of '
    'https://www.cs.toronto.edu/~kriz/cifar.html, unpacked in data_root; or '
    'train_dataloader.dataset.download=True'
)

# RGB; mean and standard deviation of ImageNet, 0 to 255. A teacher on 32-pixel
# images that was trained with those of CIFAR-100 must be told the difference.
rgb_mean = [123.675, 116.28, 103.53]
rgb_std = [58.395, 57.12, 57.375]
data_preprocessor = dict(
    num_classes=100,
    mean=rgb_mean,
    std=rgb_std,
    # The arrays are RGB already.
    to_rgb=False,
)

train_pipeline = [
    dict(
        type='RandomResizedCrop',
        scale=224,
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[124, 116, 104], interpolation='bicubic'),
    ),
    # Noise of the images' own mean and spread, so about N(0, 1) afterwards.
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=rgb_mean,
        fill_std=rgb_std,
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(
        type='Resize',
        scale=(224, 224),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmrkkd.CIFAR100',
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
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
