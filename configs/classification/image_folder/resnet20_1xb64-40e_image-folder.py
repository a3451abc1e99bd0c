# The teacher, trained twice as long as a student.
_base_ = './resnet8_1xb64-20e_image-folder.py'

model = dict(backbone=dict(depth=20))
param_scheduler = dict(milestones=[25, 30, 35])
train_cfg = dict(max_epochs=40)
