"""What distillation adds to a detector's training step.

    python tools/benchmarks/detector_overhead.py

Two images of 320 x 320, the main job's models with random weights. A step
without distillation is the student's forward and backward and the teacher's
forward (features, and scores of the student's boxes). What is added is
everything else: tap, bridge, losses, telemetry, and the losses' own backward
pass to the student's logits. The parts are timed inside one and the same
step, as the difference of two long steps would drown in their spread.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

import measure
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.registry import MODELS, init_default_scope
from pairs import model_config

from mmrkkd.distillers import terms as term_module
from mmrkkd.distillers.readers import two_stage

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'rkkd_fasterrcnn_r50_mv2_coco.py'
PARTS = ('student', 'teacher', 'distillation', 'telemetry')
# Of the ranking, and of KL or its form for sigmoid heads.
TERMS = ('loss_kd', 'loss_binary_kd', 'loss_rank')


class Stopwatch:
    """Adds up the time spent in functions that it is put around."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def around(self, owner: object, name: str, part: str) -> None:
        """Times every call of owner.name as part of a step."""
        inner = getattr(owner, name)
        setattr(owner, name, lambda *a, **k: self.timed(part, inner, *a, **k))

    def timed(self, part: str, function: Callable, *args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        self.seconds[part] += time.perf_counter() - start
        return result


def build(config: str) -> torch.nn.Module:
    """The config's model; no checkpoint is read."""
    return MODELS.build(model_config(config, 'mmdet')).train()


def one_step(model: torch.nn.Module, data: dict) -> dict[str, float]:
    """Seconds of each part of a step."""
    watch = Stopwatch()
    scores = []
    student, teacher = model.student, model.teacher.model
    if hasattr(student, 'roi_head'):
        hook = student.roi_head.bbox_head.loss_cls.register_forward_pre_hook(
            lambda module, args: scores.append(args[0])
        )
    else:
        # A dense head: the class scores of each level come first.
        hook = student.bbox_head.register_forward_hook(
            lambda module, args, outputs: scores.extend(outputs[0])
        )
        watch.around(teacher.bbox_head, 'forward', 'teacher')
    originals = two_stage.box_logits, term_module.agreement
    watch.around(student, 'forward', 'student')
    watch.around(teacher, 'extract_feat', 'teacher')
    watch.around(two_stage, 'box_logits', 'teacher')
    watch.around(term_module, 'agreement', 'telemetry')
    try:
        start = time.perf_counter()
        terms = model.loss(**data)
        whole = time.perf_counter() - start
    finally:
        hook.remove()
        del student.forward, teacher.extract_feat
        if not hasattr(student, 'roi_head'):
            del teacher.bbox_head.forward
        two_stage.box_logits, term_module.agreement = originals
    inner = sum(watch.seconds[part] for part in ('student', 'teacher'))
    watch.seconds['distillation'] = whole - inner
    added = sum(terms[name] for name in TERMS if name in terms)
    watch.timed(
        'distillation', torch.autograd.grad, added, scores,
        retain_graph=True,
    )  # fmt: skip
    total, _ = model.parse_losses(terms)
    watch.timed('student', total.backward)
    model.zero_grad()
    return watch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--config', default=str(CONFIG))
    parser.add_argument('--steps', type=int, default=15)
    parser.add_argument('--size', type=int, default=320)
    parser.add_argument('--work-dir', default='work_dirs/benchmarks')
    args = parser.parse_args()
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = build(args.config)
    shapes = [[3, args.size, args.size]] * 2
    data = demo_mm_inputs(2, shapes, num_classes=80)
    data = model.data_preprocessor(data, True)
    one_step(model, data)
    steps = [one_step(model, data) for _ in range(args.steps)]
    shares = [
        100 * step['distillation'] / (step['student'] + step['teacher'])
        for step in steps
    ]
    result = {
        part: measure.spread([step[part] for step in steps]) for part in PARTS
    }
    result['added_percent'] = statistics.median(shares)
    result['environment'] = measure.environment()
    for part in PARTS:
        print('{0:12} {median_ms:8.1f} ms ({low_ms:.1f} to {high_ms:.1f})'
              .format(part, **result[part]))  # fmt: skip
    print(
        f'distillation, telemetry included, adds {min(shares):.2f} to '
        f'{max(shares):.2f} %, median {result["added_percent"]:.2f} %, to a '
        f'step of {args.steps}'
    )
    folder = Path(args.work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'detector_overhead.json').write_text(
        json.dumps(result, indent=1)
    )


if __name__ == '__main__':
    main()
