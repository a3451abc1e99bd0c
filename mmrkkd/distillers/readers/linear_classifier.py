"""The linear layer that makes a classifier's scores of its last map."""

from collections.abc import Sequence

from torch import Tensor, nn


class ClassifierReader:
    """Finds the weights of a classifier's one linear layer.

    Args:
        model: The classifier.
        owner: 'student' or 'teacher', for messages.
        shapes: Of the layers asked for on an empty image, (1, C, H, W); the
            linear layer must take C numbers.

    Raises:
        ValueError: the head has no linear layer, or several, or they do not
            stand on these layers.
    """

    def __init__(
        self, model: nn.Module, owner: str, shapes: Sequence[Sequence[int]]
    ) -> None:
        # Heads that normalise their weights have layers of other types.
        layers = [
            (name, part)
            for name, part in getattr(
                model, 'head', nn.Module()
            ).named_modules()
            if type(part) is nn.Linear
        ]
        if len(layers) != 1:
            raise ValueError(
                'the loss is made for classifiers whose head has one linear '
                f'layer, and the head of the {owner} '
                f'{type(model).__name__} has {len(layers)}: use a loss that '
                'needs none'
            )
        name, layer = layers[0]
        self.path = f'head.{name}'
        for shape in shapes:
            if len(shape) != 4 or shape[1] != layer.in_features:
                raise ValueError(
                    f"the {owner}'s linear layer {self.path!r} takes "
                    f'{layer.in_features} channels, and a layer asked for has '
                    f'the shape {tuple(shape)}: name the last map before it'
                )

    def read(self, model: nn.Module) -> Tensor:
        """The weights, (classes, C).

        Args:
            model: The classifier, or a copy.
        """
        return model.get_submodule(self.path).weight
