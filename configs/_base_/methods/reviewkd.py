# ReviewKD: fused levels, 20 epochs of warm-up. The weight is that of most
# pairs; cells with another one say so, and name the stages, the teacher's
# before their activation, as released. As it is here, whatever the backbone
# puts out, and the pooled vector.
distillation = dict(
    losses=dict(
        type='mmrkkd.ReviewKDLoss',
        student_layers=['backbone[*]', 'neck'],
        loss_weight=dict(type='linear', stop=5.0, end=20),
    ),
    task_weight=1.0,
)
