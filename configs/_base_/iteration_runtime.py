# MMDetection's run time, counting steps instead of epochs.
_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=15000, max_keep_ckpts=2)
)
log_processor = dict(by_epoch=False)
