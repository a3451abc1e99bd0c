# ImageNet-1k at 224 pixels. 128 images a device: 512 a step on four of them.
data_root = 'data/imagenet/'
# Told where the data are missing.
data_source = (
    'https://image-net.org/download: data_root holds train/ and val/, a '
    'folder for each class in both'
)

data_preprocessor = dict(
    num_classes=1000,
    # RGB; mean and standard deviation of the training images, 0 to 255.
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    # Files are read as BGR.
    to_rgb=True,
)

# Pillow resizes here, as for the teachers that were trained with torchvision.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ImageNet',
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageNet',
        data_root=data_root,
        split='val',
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
