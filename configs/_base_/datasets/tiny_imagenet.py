# Tiny-ImageNet, 64x64, 128 images a step, turned by up to 20 degrees. Nothing
# is downloaded; data_root is the archive as it unpacks, or a sorted copy.
data_root = 'data/tiny-imagenet-200/'
# Told where the data are missing.
data_source = (
    'tiny-imagenet-200.zip of http://cs231n.stanford.edu, unpacked: '
    'data_root holds wnids.txt, train/ and val/'
)

data_preprocessor = dict(
    num_classes=200,
    # RGB; mean and standard deviation of the training images, 0 to 255.
    mean=[122.451, 114.2655, 101.3625],
    std=[58.701, 57.7575, 57.681],
    # Files are read as BGR.
    to_rgb=True,
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='Rotate',
        prob=1.0,
        # An angle uniform between -20 and 20 degrees.
        magnitude_range=(0, 20),
        magnitude_std='inf',
        random_negative_prob=0.5,
        pad_val=0,
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmrkkd.TinyImageNet',
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmrkkd.TinyImageNet',
        data_root=data_root,
        split='val',
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
