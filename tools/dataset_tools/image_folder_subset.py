"""A part of an image folder: fewer classes and a three-way split.

    python tools/dataset_tools/image_folder_subset.py data/full data/part \\
        --classes 20 --train 400 --extra-val 100

reads ``train/<class>/`` and ``val/<class>/`` and writes a folder with

* ``train``: images of the original training set;
* ``choice`` (with ``--choice``): others of it, for choosing settings by;
* ``val``: the original validation set and, with ``--extra-val``, images held
  out of the original training set, their names led by ``train_``;
* ``split.json``: what went where, and a digest of the list of files.

Where an image goes depends on the seed, its class and its name only: the
validation set stays the same when ``--classes``, ``--choice`` or ``--train``
change. The images are copied, so that the folder can be moved; ``--symlink``
links them instead.
"""

import argparse
import hashlib
import json
import os
import shutil
from pathlib import Path

from tqdm import tqdm

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif')
RECORD = 'split.json'
# Raise it whenever the same options give another split.
VERSION = 1


def parse_args(argv=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', help='folder with train/ and val/')
    parser.add_argument('out', help='folder to make')
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='K|NAME',
        help='the first K classes in sorted order, or the folder names of '
        'the classes; all of them by default',
    )
    parser.add_argument(
        '--train',
        type=int,
        help='training images a class; by default all that --extra-val and '
        '--choice leave',
    )
    parser.add_argument(
        '--choice',
        type=int,
        default=0,
        help='training images a class to hold out for choosing settings '
        '(default: %(default)s, no such folder)',
    )
    parser.add_argument(
        '--extra-val',
        type=int,
        default=0,
        help='training images a class to hold out and add to the validation '
        'images (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='same seed, same split (default: %(default)s)',
    )
    parser.add_argument(
        '--symlink',
        action='store_true',
        help='link the images instead of copying them',
    )
    return parser.parse_args(argv)


def choose_classes(source, wanted=None):
    """The class folders to take, in sorted order.

    Args:
        source: Folder with ``train`` and ``val``.
        wanted: None for all, ``['20']`` for the first 20, or folder names.

    Raises:
        FileNotFoundError: a split is missing.
        ValueError: the splits differ in their classes, or a wanted class or
            number of classes is not there.
    """
    found = {}
    for split in ('train', 'val'):
        folder = source / split
        if not folder.is_dir():
            raise FileNotFoundError(
                f'no folder {folder}; the source must hold train/<class>/ '
                'and val/<class>/'
            )
        found[split] = sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.is_dir() and not entry.name.startswith('.')
        )
    if found['train'] != found['val']:
        unlike = sorted(set(found['train']) ^ set(found['val']))
        raise ValueError(
            f'train and val of {source} must have the same class folders; '
            f'only one of them has {", ".join(unlike[:5])}'
        )
    names = found['train']
    if wanted is None:
        return names
    if len(wanted) == 1 and wanted[0].isdigit() and wanted[0] not in names:
        if not 2 <= int(wanted[0]) <= len(names):
            raise ValueError(
                f'--classes must be in [2, {len(names)}], the classes of '
                f'{source}, got {wanted[0]}'
            )
        return names[: int(wanted[0])]
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise ValueError(
            f'--classes names {", ".join(unknown[:5])}, but {source} has no '
            'such class folder'
        )
    return sorted(set(wanted))


def images_of(folder):
    """Paths of the images in a class folder and below it, sorted.

    Hidden files and folders are none of them: macOS leaves a ``._a.jpg``
    beside each ``a.jpg``.
    """
    return sorted(
        path
        for path in folder.rglob('*')
        if path.suffix.lower() in EXTENSIONS
        and not any(
            part.startswith('.') for part in path.relative_to(folder).parts
        )
    )


def plan_class(source, name, args):
    """Where the images of one class go.

    Args:
        source: Folder with ``train`` and ``val``.
        name: Folder name of the class.
        args: Has ``train``, ``choice``, ``extra_val`` and ``seed``.

    Returns:
        dict: From the path below the new folder to the source path.

    Raises:
        ValueError: the class has too few images, or two of them would get
            one name.
    """
    pool = images_of(source / 'train' / name)
    pool.sort(
        key=lambda path: hashlib.sha256(
            f'{args.seed}/{name}/{path.name}'.encode()
        ).digest()
    )
    held_out = args.extra_val + args.choice
    needed = held_out + (1 if args.train is None else args.train)
    if len(pool) < needed:
        raise ValueError(
            f'class {name} has {len(pool)} training images, but --train, '
            f'--choice and --extra-val need at least {needed} together'
        )
    val = images_of(source / 'val' / name)
    if not val:
        raise ValueError(f'class {name} has no image in {source / "val"}')
    last = None if args.train is None else needed
    moves = [(f'val/{name}/{path.name}', path) for path in val]
    moves += [
        (f'val/{name}/train_{path.name}', path)
        for path in pool[: args.extra_val]
    ]
    moves += [
        (f'choice/{name}/{path.name}', path)
        for path in pool[args.extra_val : held_out]
    ]
    moves += [
        (f'train/{name}/{path.name}', path) for path in pool[held_out:last]
    ]
    plan = dict(moves)
    if len(plan) < len(moves):
        raise ValueError(
            f'two images of class {name} would get the same name; rename '
            f'those in {source}'
        )
    return plan


def record_of(classes, plan, args):
    """The content of the record, a dict that two equal splits share."""
    splits = [target.split('/')[0] for target in plan]
    lines = sorted(
        f'{target} {path.relative_to(args.source).as_posix()} '
        f'{path.stat().st_size}'
        for target, path in plan.items()
    )
    return dict(
        version=VERSION,
        source=Path(args.source).resolve().name,
        seed=args.seed,
        images_a_class=dict(
            train=args.train, choice=args.choice, extra_val=args.extra_val
        ),
        counts={split: splits.count(split) for split in sorted(set(splits))},
        classes=classes,
        # Of the lines "<new path> <source path> <bytes>", sorted.
        files_sha256=hashlib.sha256('\n'.join(lines).encode()).hexdigest(),
    )


def is_complete(out, record, plan):
    """Whether ``out`` holds exactly this split."""
    try:
        if json.loads((out / RECORD).read_text()) != record:
            return False
    except (OSError, ValueError):
        return False
    present = {
        path.relative_to(out).as_posix(): path.stat().st_size
        for path in out.rglob('*')
        if path.is_file() and path.name != RECORD
    }
    return present == {
        target: path.stat().st_size for target, path in plan.items()
    }


def make_subset(args):
    """Writes the split, or keeps one that is there already.

    It is written into ``<out>.partial`` and renamed when it is complete.

    Args:
        args: The parsed options.

    Returns:
        tuple: The record, and whether anything was written.

    Raises:
        FileExistsError: ``out`` holds something else; it is not touched.
        FileNotFoundError: the source lacks a split.
        ValueError: an option does not fit the source.
    """
    source, out = Path(args.source), Path(args.out)
    _check_numbers(args)
    classes = choose_classes(source, args.classes)
    plan = {}
    for name in classes:
        plan.update(plan_class(source, name, args))
    record = record_of(classes, plan, args)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if is_complete(out, record, plan):
            return record, False
        raise FileExistsError(
            f'{out} is not empty and does not hold this split; name another '
            'folder or move it away'
        )
    partial = out.with_name(out.name + '.partial')
    _clear_partial(partial)
    partial.mkdir(parents=True)
    _write_record(partial, record)
    _place(plan, partial, args.symlink)
    if out.exists():
        out.rmdir()
    partial.rename(out)
    return record, True


def _check_numbers(args):
    for option, least in (('train', 1), ('choice', 0), ('extra_val', 0)):
        number = getattr(args, option)
        if number is not None and number < least:
            raise ValueError(
                f'--{option.replace("_", "-")} must be at least {least}, '
                f'got {number}'
            )


def _clear_partial(partial):
    """Removes what an interrupted run left, and nothing else."""
    if not partial.exists():
        return
    if not (partial / RECORD).is_file():
        raise FileExistsError(
            f'{partial} is in the way and not of an interrupted run; move it'
        )
    shutil.rmtree(partial)


def _write_record(folder, record):
    (folder / RECORD).write_text(json.dumps(record, indent=1) + '\n')


def _place(plan, folder, symlink):
    for target in {str(Path(target).parent) for target in plan}:
        (folder / target).mkdir(parents=True)
    # disable=None: no bar where the output is no terminal.
    bar = tqdm(
        plan.items(),
        desc='linking' if symlink else 'copying',
        unit='image',
        disable=None,
    )
    for target, path in bar:
        if symlink:
            os.symlink(path.resolve(), folder / target)
        else:
            shutil.copyfile(path, folder / target)


def main(argv=None):
    """Makes the folder, or says why not."""
    args = parse_args(argv)
    try:
        record, written = make_subset(args)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f'image_folder_subset: {error}') from None
    counts = ', '.join(
        f'{number} {split}' for split, number in record['counts'].items()
    )
    print(
        f'{args.out}: {len(record["classes"])} classes, {counts} images, '
        f'{"written" if written else "already complete, kept"}'
    )


if __name__ == '__main__':
    main()
