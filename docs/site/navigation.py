"""What stands where in the menu. New pages of docs/en need no entry here."""

# Pages that are named stand in this order. One that is not named stands at the
# end of the section of its folder, or of the guides.
SECTIONS = {
    'Start': [
        'readme',
        'what_you_get',
        'get_started',
        'install',
        'demo',
        'notebooks/first_distillation',
        'troubleshooting',
    ],
    'Choose': [
        'which_method',
        'model_zoo',
        'supported_detectors',
        'comparison',
    ],
    'Guides': [
        'classification',
        'own_detector_and_data',
        'dense_detectors',
        'query_detectors',
        'features',
        'ablation',
        'report',
        'figures',
        'robust_runs',
        'deploy',
    ],
    'Measured': [
        'real_photos',
        'real_images',
        'performance',
        'teacher_speed',
    ],
    'Extend': ['add_a_loss', 'add_a_head', 'design', 'algebra'],
    'Reference': ['api/commands', 'api/losses', 'api/feature_losses'],
    'Project': ['changelog', 'contributing'],
}
# Where the page's own title would not do.
TITLES = {'readme': 'Overview'}
FOLDERS = {'measurements': 'Measured', 'api': 'Reference'}


def sections(names: list[str]) -> dict[str, list[str]]:
    """The pages of each section, in order.

    Args:
        names: Every page of the site without the first, without suffix.
    """
    named = {name for pages in SECTIONS.values() for name in pages}
    found = {
        title: [name for name in pages if name in names]
        for title, pages in SECTIONS.items()
    }
    for name in sorted(set(names) - named):
        folder = name.partition('/')[0]
        found[FOLDERS.get(folder, 'Guides')].append(name)
    return found


def entry(name: str) -> str:
    """A page's line of a menu, with a title if it needs another."""
    folder, _, stem = name.rpartition('/')
    title = TITLES.get(name)
    if folder == 'measurements':
        # What a program printed; several have one title.
        title = f'Record: {stem.replace("_", " ")}'
    return f'{title} <{name}>' if title else name


def toctrees(names: list[str]) -> str:
    """The sections as directives of Sphinx, for the first page."""
    blocks = [
        '\n'.join(
            ['```{toctree}', ':hidden:', f':caption: {title}', '']
            + [*map(entry, pages), '```']
        )
        for title, pages in sections(names).items()
        if pages
    ]
    return '\n' + '\n\n'.join(blocks) + '\n'
