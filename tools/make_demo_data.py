"""Draw the demo data set: COCO format, no download."""

import argparse

from mmrkkd.datasets import CLASSES, Recipe, make_demo_shapes


def parse_args(argv=None):
    """Reads the command line."""
    standard = Recipe()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out',
        default='data/demo_shapes',
        help='folder to make (default: %(default)s)',
    )
    parser.add_argument(
        '--train',
        type=int,
        default=standard.train,
        help='training images (default: %(default)s)',
    )
    parser.add_argument(
        '--val',
        type=int,
        default=standard.val,
        help='held-out images (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=standard.size,
        help='side in pixels (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=standard.seed,
        help='same seed, same images (default: %(default)s)',
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Draws the set, or says why not."""
    args = parse_args(argv)
    try:
        recipe = Recipe(args.train, args.val, args.size, args.seed)
        drawn = make_demo_shapes(args.out, recipe)
    except (ValueError, FileExistsError) as error:
        raise SystemExit(f'make_demo_data: {error}') from None
    print(
        f'{args.out}: {args.train} + {args.val} images, {len(CLASSES)} '
        f'classes, {"drawn" if drawn else "already complete, kept"}'
    )


if __name__ == '__main__':
    main()
