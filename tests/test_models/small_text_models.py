"""Grounding DINO and GLIP, small, with a language model of single words.

Their heads, fusion and predict are MMDetection's own; BERT, which is not
here, is replaced by a table of embeddings.
"""

import re
from types import SimpleNamespace

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from small_dense_heads import dense_config
from small_query_heads import query_config
from torch import nn

WIDTH = 16
LONGEST = 24


class Encoding(dict):
    """What a tokenizer of Hugging Face gives, as far as it is used."""

    def __init__(self, ids, spans):
        super().__init__(input_ids=ids)
        self.input_ids, self.spans = ids, spans

    def char_to_token(self, place):
        for token, (start, end) in enumerate(self.spans, 1):
            if start <= place < end:
                return token if token < LONGEST else None
        return None


class WordTokenizer:
    """A token for each word and mark, between a first and a last one."""

    def __call__(self, captions, **kwargs):
        spans = [
            match.span() for match in re.finditer(r'\w+|[^\w\s]', captions[0])
        ]
        words = [captions[0][start:end] for start, end in spans]
        ids = [0, *(1 + sum(map(ord, word)) % 90 for word in words), 0]
        return Encoding(torch.tensor([ids])[:, :LONGEST], spans)


@MODELS.register_module(force=True)
class WordModel(nn.Module):
    """Embeddings of words, with what MMDetection's BertModel gives."""

    pad_to_max = False
    max_tokens = LONGEST

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(100, WIDTH)
        self.tokenizer = WordTokenizer()
        self.language_backbone = nn.Module()
        self.language_backbone.body = SimpleNamespace(language_dim=WIDTH)

    def forward(self, captions):
        assert len(set(captions)) == 1
        ids = self.tokenizer(captions[:1])['input_ids']
        ids = ids.expand(len(captions), -1)
        embedded, count = self.words(ids), ids.shape[1]
        together = torch.ones(len(ids), count, count, dtype=torch.bool)
        return dict(
            embedded=embedded,
            hidden=embedded,
            masks=together,
            text_token_mask=torch.ones_like(ids, dtype=torch.bool),
            position_ids=torch.arange(count).expand(len(ids), -1),
        )


def grounding_dino() -> ConfigDict:
    """Grounding DINO around the small DINO."""
    text = (
        "_base_ = 'mmdet::grounding_dino/"
        "grounding_dino_swin-t_pretrain_obj365_goldg_cap4m.py'"
    )
    shipped = Config.fromstring(text, '.py').model
    # The width of the positions of its text is fixed.
    model = query_config('dino', wide=True)
    model.type = 'GroundingDINO'
    model.language_model = dict(type='WordModel')
    for name in ('text_layer_cfg', 'fusion_layer_cfg'):
        model.encoder[name] = shipped.encoder[name]
    model.decoder.layer_cfg.cross_attn_text_cfg = (
        shipped.decoder.layer_cfg.cross_attn_text_cfg
    )
    model.bbox_head.update(
        type='GroundingDINOHead',
        contrastive_cfg=dict(shipped.bbox_head.contrastive_cfg),
    )
    model.train_cfg = None
    return model


def glip() -> ConfigDict:
    """GLIP's head on the small ATSS."""
    model = dense_config('atss')
    head = model.bbox_head
    model.type = 'GLIP'
    model.language_model = dict(type='WordModel')
    model.bbox_head = dict(
        type='ATSSVLFusionHead',
        num_classes=80,
        in_channels=32,
        feat_channels=32,
        num_dyhead_blocks=1,
        anchor_generator=head.anchor_generator,
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoderForGLIP',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
    )
    return model


class SmallBertConfig:
    """How wide the language model is, which GLIP's head asks BERT's config."""

    @staticmethod
    def from_pretrained(name):
        return SimpleNamespace(hidden_size=WIDTH)
