"""Evaluates a checkpoint.

The config may be that of a plain model or of a distillation: the checkpoint
of a distilled student is a plain checkpoint, so the student alone is built
and no teacher is needed.
"""

import argparse
import copy

from mmengine.config import Config, ConfigDict
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import Runner

from mmrkkd.checkpoint import use_safe_reader
from mmrkkd.cli import (
    add_config_options,
    add_trust_option,
    check_data,
    read_config,
)
from mmrkkd.datasets import name_broken_images
from mmrkkd.engine import join_processes


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
    dataset = config.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_model' not in config:
        if config.get('default_scope') != 'mmdet':
            raise ValueError(
                '--tta needs tta_model and tta_pipeline in the '
                'config of anything but a detector'
            )
        config.tta_model = dict(
            type='mmdet.DetTTAModel',
            tta_cfg=dict(
                nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
            ),
        )
        config.tta_pipeline = copy.deepcopy(dataset.pipeline)
        pack = config.tta_pipeline[-1]
        pack.meta_keys = (
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        )
        config.tta_pipeline[-1] = dict(
            type='TestTimeAug',
            transforms=[
                [
                    dict(type='RandomFlip', prob=1.0),
                    dict(type='RandomFlip', prob=0.0),
                ],
                [pack],
            ],
        )
    config.model = ConfigDict(**config.tta_model, module=config.model)
    dataset.pipeline = config.tta_pipeline


def main() -> None:
    """Builds the runner and evaluates."""
    args = parse_args()
    config = read_config(args)
    if 'student' in config.model:
        config.model = config.model.student
    config.load_from = args.checkpoint
    use_safe_reader(args.trust_checkpoint)
    if args.show or args.show_dir:
        draw_predictions(config, args)
    if args.tta:
        use_tta(config)
    check_data(config, ('test_dataloader',))
    join_processes(config)
    name_broken_images(config)
    if 'runner_type' in config:
        runner = RUNNERS.build(config)
    else:
        runner = Runner.from_cfg(config)
    if args.out is not None:
        # MMDetection's dump packs masks; elsewhere there are none.
        is_detection = config.get('default_scope') == 'mmdet'
        dump = 'mmdet.DumpDetResults' if is_detection else 'DumpResults'
        runner.test_evaluator.metrics.append(
            METRICS.build(dict(type=dump, out_file_path=args.out))
        )
    runner.test()


if __name__ == '__main__':
    main()
