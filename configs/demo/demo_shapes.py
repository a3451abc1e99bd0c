# The generated data set, a schedule of a few minutes on two CPU cores, and
# the runtime: what every demo config shares.
_base_ = 'mmdet::_base_/default_runtime.py'

data_root = 'data/demo_shapes/'
image_size = (128, 128)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
    ),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmrkkd.DemoShapesDataset',
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmrkkd.DemoShapesDataset',
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/val.json',
    metric='bbox',
)
test_evaluator = val_evaluator

# Held-out images are scored and weights saved once, after the last
# iteration: the intervals are beyond it.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=200, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# The comparison with the teacher takes as long as the scoring: the first
# images say enough.
compared_images = 200

# AdamW, since it forgives a schedule this short.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.02),
    clip_grad=dict(max_norm=10, norm_type=2),
)
# Keep total_steps at max_iters.
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=1e-3,
    total_steps=200,
    pct_start=0.1,
    by_epoch=False,
)

# Weights only: these runs are repeated rather than resumed.
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(
        by_epoch=False,
        interval=10000,
        save_optimizer=False,
        save_param_scheduler=False,
    ),
)
log_processor = dict(by_epoch=False, window_size=10)
randomness = dict(seed=0)
