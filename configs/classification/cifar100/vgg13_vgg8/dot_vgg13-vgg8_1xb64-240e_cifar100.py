# KD trained by DOT, with a momentum for each gradient: VGG13 -> VGG8.
_base_ = './kd_vgg13-vgg8_1xb64-240e_cifar100.py'

optim_wrapper = dict(
    type='mmrkkd.DOTOptimWrapper',
    optimizer=dict(type='mmrkkd.DOT', delta=0.075),
)
