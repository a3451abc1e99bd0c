"""What a text is that was given as a checkpoint."""

import codecs
import re

SHOWN = 60
POINTERS = (
    (
        # The older name is that of the time before Git LFS had its own.
        (
            'version https://git-lfs.github.com/spec/',
            'version https://hawser.github.com/spec/',
        ),
        'a Git LFS pointer, which stands for a file that was not fetched: run '
        '`git lfs pull` in its repository, or download the file itself',
    ),
    (
        ('/annex/objects/',),
        'a git-annex pointer, which stands for a file that was not fetched: '
        'run `git annex get` in its repository',
    ),
)
# What may stand before the first element, which tells.
PROLOGUE = re.compile(r'(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*', re.DOTALL)
HTML = re.compile(
    r'<(?:!--|(?:!doctype\s+html|html|head|body|title|meta|link|script|style'
    r'|div|p|h1|center|table)\b)',
    re.IGNORECASE,
)
SHARD = re.compile(r'"([^"/]+-of-\d+\.\w+)"')


def decoded(start: bytes) -> str | None:
    """The first bytes of a file as text, or None if they are none.

    Args:
        start: In UTF-8, UTF-16 with its mark, or Latin-1; a character at
            the end may be cut in two.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ('utf-16',)
    else:
        encodings = ('utf-8-sig', 'latin-1')
    for encoding in encodings:
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(start)
        except UnicodeDecodeError:
            continue
        text = text.strip()
        if text and all(c.isprintable() or c.isspace() for c in text):
            return text
    return None


def foreign_text(text: str) -> str:
    """What a text is, and what to do.

    Args:
        text: Its beginning, not empty.

    Returns:
        A phrase to follow 'is'.
    """
    for starts, what in POINTERS:
        if text.startswith(starts):
            return what
    if HTML.match(text, PROLOGUE.match(text).end()):
        return (
            'a web page (HTML): the address leads to a page about the file, '
            'to a log-in or to a warning; download the file itself and look '
            'at its size'
        )
    if text.startswith('<'):
        return (
            'an XML document, often the error that a storage server '
            f'answered with: {text[:SHOWN]!r}; download it again'
        )
    if text.startswith('{') and '"weight_map"' in text:
        shards = list(dict.fromkeys(SHARD.findall(text)))
        return (
            'the index of a model whose weights are split over several files'
            f' ({", ".join([*shards[:2], "..."])}): join them into one state '
            'dict, save it by torch.save and give that file'
        )
    kind = 'a JSON' if text[0] in '{[' else 'a text'
    first = text.splitlines()[0]
    return (
        f'{kind} file that begins with {first[:SHOWN]!r}: give the checkpoint'
    )
