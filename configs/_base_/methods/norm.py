# NORM beside KD, as in the row that tables call NORM: eight copies of the
# teacher's last map, logits normalised and multiplied by 2.5 first. Its
# authors' weights of cross entropy and KD differ from pair to pair, and are
# not all known: those here are KD's.
distillation = dict(
    losses=[
        dict(type='mmrkkd.KDLoss', temperature=4.0, loss_weight=0.9),
        dict(
            type='mmrkkd.NORMLoss',
            student_layers='backbone[0]',
            loss_weight=dict(
                type='steps',
                values=[0.1, 0.5, 1.0, 0.5, 0.1],
                milestones=[10, 20, 180, 210],
            ),
            copies=8,
            logit_scale=2.5,
        ),
    ],
    task_weight=0.1,
)
