# WTTM. Its authors' code shows one setting, beside a feature loss; its
# settings on its own are not published.
distillation = dict(
    losses=dict(type='mmrkkd.WTTMLoss', exponent=0.2, loss_weight=4.0),
    task_weight=1.0,
)
