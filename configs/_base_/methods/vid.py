# VID: the teacher's maps given the student's, with learned variances, which
# the code behind some tables leaves as they start (mend_slips=False). The
# cells name the stages; as it is here, whatever the backbone puts out.
distillation = dict(
    losses=dict(
        type='mmrkkd.VIDLoss', student_layers='backbone[*]', loss_weight=1.0
    ),
    task_weight=1.0,
)
