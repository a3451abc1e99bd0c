# KD trained by DOT, with a momentum for each gradient:
# ResNet-18 -> MobileNetV2.
_base_ = './kd_resnet18-mobilenetv2_1xb128-240e_tiny-imagenet.py'

optim_wrapper = dict(
    type='mmrkkd.DOTOptimWrapper',
    optimizer=dict(type='mmrkkd.DOT', delta=0.075),
)
