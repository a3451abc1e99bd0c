# A wider and deeper teacher, for hundreds of classes.
_base_ = './resnet20_1xb64-40e_image-folder.py'

model = dict(backbone=dict(depth=32, wide=True), head=dict(in_channels=256))
