# KD trained by DOT, with a momentum for each gradient:
# ResNet-50 -> MobileNetV1.
_base_ = './kd_resnet50-mobilenetv1_4xb128-100e_in1k.py'

optim_wrapper = dict(
    type='mmrkkd.DOTOptimWrapper',
    optimizer=dict(type='mmrkkd.DOT', delta=0.09),
)
