# The teacher of features.yml and hundred.yml: 15 epochs, for a CPU.
_base_ = './resnet20_1xb64-40e_image-folder.py'

train_cfg = dict(max_epochs=15, val_interval=15)
# 62, 75 and 87 % of them.
param_scheduler = dict(milestones=[9, 11, 13])
custom_hooks = [dict(type='mmrkkd.ChannelsLastHook')]
