"""Evaluates a checkpoint.

The config may be that of a plain model or of a distillation: the checkpoint
of a distilled student is a plain checkpoint, so the student alone is built
and no teacher is needed.
"""

import argparse
import copy

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.registry import METRICS
from mmengine.runner import Runner

from mmrkkd.cli import add_config_options, add_trust_option, read_config
from mmrkkd.datasets import inner_datasets
from mmrkkd.distillers.model_config import plain_model
from mmrkkd.distillers.teacher import load_strictly
from mmrkkd.engine import prepare_run
from mmrkkd.engine.launch import unwrapped
from mmrkkd.registry import type_name


class FitHook(Hook):
    """Refuses a checkpoint that does not fit, before anything is scored.

    MMEngine logs which weights are missing, and scores a model that has
    random ones in their place.

    Args:
        config: Name of the config, for the message.
        checkpoint: Where the weights come from, for the message.
    """

    # EMAHook copies the weights after this.
    priority = 'VERY_HIGH'

    def __init__(self, config: str, checkpoint: str) -> None:
        self.config, self.checkpoint = config, checkpoint

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Judges the weights as :func:`load_strictly` does a teacher's.

        Args:
            runner: The runner.
            checkpoint: Gets the weights as the model took them.

        Raises:
            SystemExit: weights are missing or have another shape.
        """
        model = unwrapped(runner.model)
        if isinstance(model, BaseTTAModel):
            model = model.module
        weights = checkpoint.get('state_dict', checkpoint)
        names = dict(checkpoint='checkpoint', config=f'config {self.config}')
        try:
            load_strictly(model, weights, self.checkpoint, **names)
        except ValueError as error:
            raise SystemExit(f'test: {error}') from error
        checkpoint['state_dict'] = model.state_dict()


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_config_options(parser)
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument(
        '--out', metavar='FILE.pkl', help='save the predictions'
    )
    parser.add_argument(
        '--show', action='store_true', help='show the predictions'
    )
    parser.add_argument(
        '--show-dir',
        help='save drawn predictions in this folder of the work directory',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that a shown image stays',
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation by flips'
    )
    add_trust_option(parser)
    args = parser.parse_args()
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, got {args.out!r}')
    return args


def draw_predictions(config: Config, args: argparse.Namespace) -> None:
    """Turns on the visualization hook of the config."""
    hook = config.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError(
            '--show and --show-dir need default_hooks.visualization in the '
            "config, e.g. dict(type='DetVisualizationHook')"
        )
    hook.draw = True
    if args.show:
        hook.show, hook.wait_time = True, args.wait_time
    if args.show_dir:
        hook.test_out_dir = args.show_dir


def use_tta(config: Config) -> None:
    """Wraps the model for test-time augmentation, as the config says.

    A detector's config without a recipe gets MMDetection's usual one: the
    image and its mirror image, joined by NMS at IoU 0.5.
    """
    datasets = tested_datasets(config)
    if 'tta_model' not in config:
        if not is_detection(config):
            raise ValueError(
                '--tta needs tta_model and tta_pipeline in the '
                'config of anything but a detector'
            )
        config.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(
                nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
            ),
        )
        config.tta_pipeline = mirrored(datasets[0]['pipeline'])
    config.model = ConfigDict(**config.tta_model, module=config.model)
    for dataset in datasets:
        dataset['pipeline'] = config.tta_pipeline


def mirrored(pipeline: list[dict]) -> list[dict]:
    """A detector's pipeline that gives the image and its mirror image.

    It is mirrored before it is padded, or the padding would change sides
    and the boxes with it, and before annotations are read, which are those
    of the image.

    Args:
        pipeline: Of the test; its last transform packs.

    Returns:
        Another one, whose last transform is all that comes after.
    """
    pipeline = copy.deepcopy(list(pipeline))
    pipeline[-1]['meta_keys'] = (
        'img_id',
        'img_path',
        'ori_shape',
        'img_shape',
        'scale_factor',
        'flip',
        'flip_direction',
    )
    names = [type_name(transform) for transform in pipeline]
    first = next(
        (
            place
            for place, name in enumerate(names)
            if name == 'Pad' or name.endswith('Annotations')
        ),
        len(pipeline) - 1,
    )
    flips = [
        dict(type='mmdet.RandomFlip', prob=1.0),
        dict(type='mmdet.RandomFlip', prob=0.0),
    ]
    after = [[transform] for transform in pipeline[first:]]
    views = dict(type='TestTimeAug', transforms=[flips, *after])
    return [*pipeline[:first], views]


def tested_datasets(config: Config) -> list[dict]:
    """The innermost data sets of the test."""
    loader = config.get('test_dataloader') or {}
    return list(inner_datasets(loader.get('dataset')))


def is_detection(config: Config) -> bool:
    """Whether a config tests a detector.

    New-style configs have no default scope: there the data tell.
    """
    return config.get('default_scope') == 'mmdet' or any(
        type_name((dataset.get('pipeline') or [{}])[-1]) == 'PackDetInputs'
        for dataset in tested_datasets(config)
    )


def main() -> None:
    """Builds the runner and evaluates."""
    args = parse_args()
    config = read_config(args)
    config.model = plain_model(config)
    # MMDetection's dump packs masks; elsewhere there are none.
    dump = 'mmdet.DumpDetResults' if is_detection(config) else 'DumpResults'
    if args.show or args.show_dir:
        draw_predictions(config, args)
    if args.tta:
        use_tta(config)
    with prepare_run(
        config, 'test', checkpoint=args.checkpoint, trust=args.trust_checkpoint
    ) as runner:
        runner.register_hook(FitHook(args.config, args.checkpoint))
        if args.out is not None:
            runner.test_evaluator.metrics.append(
                METRICS.build(dict(type=dump, out_file_path=args.out))
            )
        runner.test()


if __name__ == '__main__':
    main()
