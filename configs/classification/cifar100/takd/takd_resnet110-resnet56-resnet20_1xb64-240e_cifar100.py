# TAKD, second link: the assistant that the first link trained teaches
# ResNet-20. A longer chain is one more file like this. Which assistants the
# published tables use is not known, nor their weights: each link is KD here.
# The authors' released loss averages the KL over the 100 classes too and
# searches its weights for each link; their hint for CIFAR-100 is
#   model.losses.temperature=10 model.losses.loss_weight=0.0004
#   model.task_weight=0.96
_base_ = [
    '../../../_base_/models/cifar/resnet20.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/kd.py',
    '../../_base_/runtime.py',
]

assistant = 'takd_resnet110-resnet56_1xb64-240e_cifar100'
model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/' + assistant + '.py',
        checkpoint='work_dirs/' + assistant + '/epoch_240.pth',
    ),
    **_base_.distillation,
)
