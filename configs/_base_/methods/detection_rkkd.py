# KD + RK of the class scores of boxes. The paper's table 5 has COCO, but not
# its weights: these are T = 1, k = 1 and alpha = gamma = 1.
distillation = dict(
    losses=dict(
        type='mmrkkd.RankKDLoss',
        temperature=1.0,
        kd_weight=1.0,
        rank_weight=1.0,
        steepness=1.0,
        form=1,
    ),
    task_weight=1.0,
)
