"""Makes a small copy of the data that ``evidence.py`` needs, to send along.

    python tools/gpu/pack.py --data data --out .pack --parts photos

The copy has the layout of the data folder, so ``--data .pack`` works. Of the
pretrained backbones only what the configs use is kept, in half precision.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.config import Config

# The folders of the package and of the tools, so that a checkout works.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from experiments import ROOT

from gpu.comparisons import PHOTOS, WEIGHTS_VARIABLE
from gpu.halved import halved_weights
from mmrkkd.registry import MODELS

STUDENTS = {
    'lite0-s5': 'faster-rcnn_lite0-s5_fpn_12e_photos.py',
    'mv2': 'faster-rcnn_mv2_fpn_12e_photos.py',
}
TEACHER = 'faster-rcnn_lite2_fpn_12e_photos.py'
MIB = 2**20


def pack_weights(config: Path, folder: Path) -> Path:
    """Writes a backbone's pretrained weights, halved, without the rest.

    Args:
        config: A detector's.
        folder: Where the file goes, under its own name.

    Returns:
        The file.

    Raises:
        ValueError: the pretrained file lacks a weight.
    """
    backbone = Config.fromfile(config).model.backbone
    path = Path(backbone.init_cfg.checkpoint)
    content = torch.load(path, map_location='cpu', weights_only=True)
    content = content.get('state_dict', content)
    backbone.init_cfg = None
    with MODELS.switch_scope_and_registry('mmdet') as registry:
        keys = registry.build(backbone).state_dict().keys()
    missing = sorted(set(keys) - set(content))
    if missing:
        raise ValueError(f'{path} lacks {missing[:5]}, {len(missing)} in all')
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    torch.save(halved_weights({key: content[key] for key in keys}), target)
    return target


def size(path: Path) -> int:
    """Bytes of a file, or of everything in a folder."""
    files = [path] if path.is_file() else path.rglob('*')
    return sum(file.stat().st_size for file in files if file.is_file())


def size_of_checkout() -> int:
    """Bytes of the files that Git tracks or does not ignore."""
    names = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard', '-z'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split('\0')
    files = [ROOT / name for name in names if name]
    return sum(file.stat().st_size for file in files if file.is_file())


def wanted(args: argparse.Namespace) -> list[Path]:
    """What must be there before anything is written."""
    found = []
    if 'photos' in args.parts:
        found += [args.data / 'voc20', args.data / 'weights']
        found += [args.teacher] if args.teacher else []
    if 'classes' in args.parts:
        found.append(args.data / 'tin32a.tar.gz')
    return found


def main() -> None:
    """Reads the command line and fills the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, required=True, help='its data')
    parser.add_argument(
        '--out', type=Path, default=Path('.pack'), help='where it goes'
    )
    parser.add_argument(
        '--parts',
        nargs='+',
        choices=['photos', 'classes'],
        default=['photos'],
        help='data sets (default: photos)',
    )
    parser.add_argument(
        '--students',
        nargs='+',
        choices=list(STUDENTS),
        default=['lite0-s5'],
        help='whose backbones (default: lite0-s5)',
    )
    parser.add_argument(
        '--teacher',
        type=Path,
        help='a trained teacher, for --teacher OUT/teacher.pth, instead of '
        'its backbone',
    )
    args = parser.parse_args()
    for path in wanted(args):
        if not path.exists():
            parser.error(
                f'{path} does not exist; --data is the folder that '
                'docs/en/real_photos.md describes, --teacher a checkpoint'
            )
    os.environ[WEIGHTS_VARIABLE] = str(args.data / 'weights')
    args.out.mkdir(parents=True, exist_ok=True)
    if 'photos' in args.parts:
        target = args.out / 'voc20'
        # Some data folders are read-only, and so would be what is copied.
        shutil.copytree(
            args.data / 'voc20',
            target,
            dirs_exist_ok=True,
            copy_function=shutil.copyfile,
        )
        configs = [STUDENTS[name] for name in args.students]
        if args.teacher:
            shutil.copyfile(args.teacher, args.out / 'teacher.pth')
        else:
            configs.append(TEACHER)
        for name in configs:
            pack_weights(PHOTOS / name, args.out / 'weights')
    if 'classes' in args.parts:
        name = 'tin32a.tar.gz'
        shutil.copyfile(args.data / name, args.out / name)
    parts = {path.name: size(path) for path in sorted(args.out.iterdir())}
    parts['the pack'] = sum(parts.values())
    parts['the checkout'] = size_of_checkout()
    for name, count in parts.items():
        print(f'{count / MIB:8.2f} MiB {name}')


if __name__ == '__main__':
    main()
