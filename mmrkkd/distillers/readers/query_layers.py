"""What the queries of each decoder layer of a detector say."""

from collections.abc import Sequence

from torch import Tensor, nn

from .query_heads import query_head, query_spec
from .query_matching import Predictions
from .text_heads import class_logits, is_text_head, text_outputs


def layers_of(
    model: nn.Module, outputs: Sequence[Sequence[Tensor]]
) -> list[Predictions]:
    """What the matching queries of each decoder layer say.

    Queries for denoising stand before them, DDQ's dense ones behind.

    Args:
        model: The detector.
        outputs: What its head gave.
    """
    head = query_head(model)
    spec = query_spec(head)
    found = spec.find(outputs, head)
    total = found[0][0].shape[1]
    after = spec.after(head) if spec.after else 0
    first = total - after - getattr(model, 'num_queries', total)
    ours = slice(max(first, 0), total - after)
    layers = []
    for index, (scores, places) in enumerate(zip(*found, strict=True)):
        images = len(scores)
        counts = spec.counts(head, index, images) if spec.counts else None
        place = {spec.places: places[:, ours]}
        layers.append(Predictions(scores[:, ours], counts=counts, **place))
    return layers


def predicted_layers(
    model: nn.Module,
    inputs: Tensor,
    data_samples: Sequence,
    prompts: Sequence[str] | None,
) -> list[Predictions]:
    """What the layers of a detector in eval mode say, as it predicts.

    Args:
        model: The detector.
        inputs: (B, 3, H, W), preprocessed for it.
        data_samples: B samples; they say how large the images are inside
            the padding.
        prompts: The classes that Grounding DINO is asked for.
    """
    head = query_head(model)
    if is_text_head(head):
        (scores, boxes), share = text_outputs(
            model, inputs, data_samples, prompts
        )
        return [
            Predictions(class_logits(tokens, share), places)
            for tokens, places in zip(scores, boxes, strict=True)
        ]
    features = model.extract_feat(inputs)
    if hasattr(model, 'forward_transformer'):
        asked = model.forward_transformer(features, data_samples)
        return layers_of(model, head(**asked))
    return layers_of(model, head(features, data_samples))
