# MMPretrain's run time, keeping the last and the best checkpoint. Published
# tables give the best test epoch, as the code bases behind them print it.
_base_ = 'mmpretrain::_base_/default_runtime.py'

default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=1, save_best='accuracy/top1')
)
