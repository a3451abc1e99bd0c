# KD trained by DOT, with a momentum for each gradient:
# ResNet-32x4 -> ShuffleNetV2.
_base_ = './kd_resnet32x4-shufflenetv2_1xb64-240e_cifar100.py'

optim_wrapper = dict(
    type='mmrkkd.DOTOptimWrapper',
    optimizer=dict(type='mmrkkd.DOT', delta=0.075),
)
