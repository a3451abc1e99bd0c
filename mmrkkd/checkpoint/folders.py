"""What a folder given as a checkpoint holds, and which file is wanted."""

import os
from pathlib import Path

SHOWN = 5
SUFFIXES = ('.pth', '.pt', '.safetensors', '.bin', '.ckpt', '.tar')
# A Hugging Face folder has the state of an optimizer beside them.
WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
# (files that are the mark of it, what the folder is, what to do).
KINDS = (
    (
        ('*mp_rank_*_states.pt', '*/*mp_rank_*_states.pt'),
        'of DeepSpeed, which splits a checkpoint',
        'join it by the zero_to_fp32.py that DeepSpeed has put beside it and '
        'give the file that this writes',
    ),
    (
        ('*.distcp',),
        'of torch.distributed.checkpoint, which splits a checkpoint',
        'join it by `python -m torch.distributed.checkpoint.format_utils '
        'dcp_to_torch FOLDER FILE` and give FILE',
    ),
    (
        ('data.pkl', '*/data.pkl'),
        'that a checkpoint was unpacked into, as some browsers do',
        'download it again and give the file as it comes',
    ),
    (
        ('*.index.json',),
        'of a model whose weights are split over several files',
        'join them into one state dict, save it by torch.save and give that '
        'file',
    ),
)


def folder_advice(folder: str | os.PathLike) -> str:
    """What a folder is, and which of its files to give.

    Args:
        folder: The folder.

    Returns:
        A phrase to follow the folder's name.
    """
    folder = Path(folder)
    for marks, what, remedy in KINDS:
        if any(any(folder.glob(mark)) for mark in marks):
            return f'is a folder {what}: {remedy}'
    for name in WEIGHTS:
        if (folder / name).is_file():
            return f'is a folder: give {folder / name}'
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and path.is_file()
    )
    if not names:
        return 'is a folder without a checkpoint in it; give the path of one'
    shown = ', '.join(names[:SHOWN]) + (', ...' if names[SHOWN:] else '')
    return f'is a folder: give one of the files in it: {shown}'
