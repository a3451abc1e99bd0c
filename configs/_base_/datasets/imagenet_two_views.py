# imagenet.py with a weak and a strong view of each training image.
_base_ = './imagenet.py'

weak_view = [
    dict(type='RandomResizedCrop', scale=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
strong_view = [
    *weak_view,
    dict(type='mmrkkd.StrongAugment', channel_order='bgr'),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=[1, 1],
        transforms=[weak_view, strong_view],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
