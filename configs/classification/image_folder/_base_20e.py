# Any folder of 32-pixel images, a small pair of networks and a schedule of
# minutes on two CPU cores: for trying methods on images of your own.
#
#   NUM_CLASSES=20 python tools/train.py <config> \
#       --cfg-options data_root=data/image_folder
_base_ = [
    '../../_base_/datasets/image_folder_32.py',
    'mmpretrain::_base_/default_runtime.py',
]

num_classes = int('{{$NUM_CLASSES:20}}')
# The five best classes of five say nothing, and of three are no set.
val_evaluator = dict(topk=(1, 5) if num_classes > 5 else (1,))
test_evaluator = val_evaluator

# SGD as for CIFAR-100, its 240 epochs shortened evenly to 20; bfloat16.
optim_wrapper = dict(
    type='mmrkkd.AutocastOptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4),
)
# 12.5, 15 and 17.5 epochs, in whole ones.
param_scheduler = dict(
    type='MultiStepLR',
    by_epoch=True,
    milestones=[12, 15, 17],
    gamma=0.1,
)
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=1)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(
    logger=dict(interval=25),
    checkpoint=dict(interval=1, max_keep_ckpts=1),
)
randomness = dict(seed=0)
