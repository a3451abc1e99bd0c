# cifar100.py with a weak and a strong view of each training image.
_base_ = './cifar100.py'

weak_view = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
strong_view = [
    *weak_view,
    dict(type='mmrkkd.StrongAugment', channel_order='rgb'),
]
train_pipeline = [
    dict(
        type='MultiView',
        num_views=[1, 1],
        transforms=[weak_view, strong_view],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
