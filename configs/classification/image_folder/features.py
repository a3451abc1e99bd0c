# Feature methods beside KL and training alone, ResNet-20 -> ResNet-8, each by
# itself, NORM and FCFD beside KL as published, with the published settings;
# where a pair has weights of its own those of ResNet-56 -> ResNet-20. Nothing
# is chosen on these images.
# The schedule is one for hours of a CPU without bfloat16: 8 epochs and a
# teacher of 15. docs/en/real_images.md has the commands and the result.
seeds = [0, 1, 2]
baseline = 'alone'
cfg_options = {
    'train_cfg.max_epochs': 8,
    'train_cfg.val_interval': 8,
    # 12, 15 and 17 of 20 epochs.
    'param_scheduler.milestones': [5, 6, 7],
    'custom_hooks': [dict(type='mmrkkd.ChannelsLastHook')],
}

stages = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3']
kd = dict(
    config='kd_resnet20-resnet8_1xb64-20e_image-folder.py',
    cfg_options={
        'model.teacher.checkpoint': (
            'work_dirs/resnet20_1xb64-15e_image-folder/epoch_15.pth'
        )
    },
)
# A third of the 8,000 images, as CRD's 16,384 are of CIFAR-100's 50,000.
contrastive = {
    'train_dataloader.dataset': dict(
        _delete_=True,
        type='mmrkkd.ContrastiveDataset',
        negatives=2621,
        dataset=dict(
            type='mmrkkd.ImageFolder',
            data_root='data/tin20',
            split='train',
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='RandomCrop', crop_size=32, padding=4),
                dict(type='RandomFlip', prob=0.5, direction='horizontal'),
                dict(type='PackInputs'),
            ],
        ),
    )
}
losses = dict(
    fitnet=dict(type='mmrkkd.FitNetLoss', student_layers='backbone.layer2'),
    at=dict(type='mmrkkd.ATLoss', student_layers=stages),
    vid=dict(type='mmrkkd.VIDLoss', student_layers=stages),
    # Of the last block of each stage what goes into its second ReLU.
    ofd=dict(
        type='mmrkkd.OFDLoss',
        student_layers=[f'before {stage}.0.relu[1]' for stage in stages],
        teacher_layers=[f'before {stage}.2.relu[1]' for stage in stages],
    ),
    rkd=dict(type='mmrkkd.RKDLoss', student_layers='neck'),
    sp=dict(type='mmrkkd.SPLoss', student_layers='backbone[0]'),
    ickd=dict(type='mmrkkd.ICKDLoss', student_layers='backbone[0]'),
    crd=dict(type='mmrkkd.CRDLoss', num_data=8000),
    reviewkd=dict(
        type='mmrkkd.ReviewKDLoss',
        student_layers=[*stages, 'neck'],
        # 20 of 240 epochs, rounded up.
        loss_weight=dict(type='linear', stop=0.6, end=1),
    ),
    catkd=dict(type='mmrkkd.CATKDLoss', loss_weight=0.7),
)
# Each with KL and the weight of cross entropy beside it.
with_kd = dict(
    norm=dict(
        losses=[
            dict(type='mmrkkd.KDLoss', temperature=4.0, loss_weight=0.9),
            dict(
                type='mmrkkd.NORMLoss',
                # 10, 20, 180 and 210 of 240 epochs, in whole ones.
                loss_weight=dict(
                    type='steps',
                    values=[0.5, 1.0, 0.5, 0.1],
                    milestones=[1, 6, 7],
                ),
                logit_scale=2.5,
            ),
        ],
        task_weight=0.1,
    ),
    fcfd=dict(
        losses=[
            dict(type='mmrkkd.KDLoss', temperature=4.0, loss_weight=1.0),
            dict(
                type='mmrkkd.FCFDLoss',
                student_layers=[*stages[:2], 'backbone[0]'],
                loss_weight=dict(type='linear', stop=0.02, end=1),
            ),
        ],
        task_weight=1.0,
    ),
)
cells = dict(
    alone=dict(config='resnet8_1xb64-20e_image-folder.py'),
    kd=kd,
    **{
        name: dict(
            config=kd['config'],
            cfg_options={
                **kd['cfg_options'],
                'model.losses': dict(_delete_=True, **loss),
                'model.task_weight': 1.0,
                **(contrastive if name == 'crd' else {}),
            },
        )
        for name, loss in losses.items()
    },
    **{
        name: dict(
            config=kd['config'],
            cfg_options={
                **kd['cfg_options'],
                'model.losses': settings['losses'],
                'model.task_weight': settings['task_weight'],
            },
        )
        for name, settings in with_kd.items()
    },
)

# A sweep states nothing else.
del stages, kd, contrastive, losses, with_kd
