# CRD: an image's pooled vector against those of other classes. Its memory
# banks have a row for each of the 50,000 training images of CIFAR-100, which
# ContrastiveDataset numbers.
distillation = dict(
    losses=dict(type='mmrkkd.CRDLoss', num_data=50000, loss_weight=0.8),
    task_weight=1.0,
)
