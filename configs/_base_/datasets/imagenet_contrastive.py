# imagenet.py whose training images know their number and have negatives.
_base_ = './imagenet.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmrkkd.ContrastiveDataset',
        dataset=_base_.train_dataloader.dataset,
    )
)
