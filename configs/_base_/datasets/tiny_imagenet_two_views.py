# tiny_imagenet.py with a weak and a strong view of each training image, both
# cropped instead of turned, 64 images a step.
_base_ = './tiny_imagenet.py'

weak_view = [
    dict(type='RandomCrop', crop_size=64, padding=8),
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
train_dataloader = dict(
    batch_size=64,
    dataset=dict(pipeline=train_pipeline),
)
