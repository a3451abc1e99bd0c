"""Which checkpoint a run goes on from, and with which hooks."""

import os

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmrkkd.checkpoint import prepare_resume
from mmrkkd.checkpoint.resume import candidates
from mmrkkd.engine import use_robust_hooks


def checkpoint(folder, name, age, **changes):
    """Writes a state that a run can go on from, as old as is said."""
    folder.mkdir(parents=True, exist_ok=True)
    content = dict(
        meta=dict(epoch=1, iter=4, seed=9),
        state_dict=dict(a=torch.ones(1)),
        message_hub={},
        optimizer={},
    )
    torch.save(dict(content, **changes), folder / name)
    os.utime(folder / name, (10_000 - age, 10_000 - age))


def config(work_dir, **checkpoint_hook):
    return Config(
        dict(
            work_dir=str(work_dir),
            resume=True,
            load_from=None,
            default_hooks=dict(
                checkpoint=dict(checkpoint_hook, type='CheckpointHook')
            ),
        )
    )


def names(config):
    return [path.name for path in candidates(config)]


def test_the_last_written_comes_first_then_the_ones_before(tmp_path):
    for epoch in (1, 2, 3, 10):
        checkpoint(tmp_path, f'epoch_{epoch}.pth', age=100 - epoch)
    checkpoint(tmp_path, 'best_accuracy_epoch_3.pth', age=0)
    checkpoint(tmp_path, 'iter_99.pth', age=0)
    (tmp_path / 'epoch_11.pth.partial').touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_10.pth'))
    expected = [f'epoch_{epoch}.pth' for epoch in (10, 3, 2, 1)]
    assert names(config(tmp_path)) == expected
    # Without the note it is the newest file.
    (tmp_path / 'last_checkpoint').unlink()
    assert names(config(tmp_path)) == expected


def test_a_kill_before_the_note_was_written(tmp_path):
    checkpoint(tmp_path, 'epoch_1.pth', age=20)
    checkpoint(tmp_path, 'epoch_2.pth', age=10)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    assert names(config(tmp_path)) == ['epoch_2.pth', 'epoch_1.pth']


@pytest.mark.parametrize('note', ['', '/gone/epoch_7.pth'])
def test_a_useless_note_does_no_harm(tmp_path, note):
    checkpoint(tmp_path, 'epoch_1.pth', age=20)
    (tmp_path / 'last_checkpoint').write_text(note)
    assert names(config(tmp_path)) == ['epoch_1.pth']


def test_what_a_longer_run_of_before_left_comes_last(tmp_path):
    checkpoint(tmp_path, 'epoch_240.pth', age=5000)
    checkpoint(tmp_path, 'epoch_1.pth', age=20)
    checkpoint(tmp_path, 'epoch_2.pth', age=10)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    expected = ['epoch_2.pth', 'epoch_1.pth', 'epoch_240.pth']
    assert names(config(tmp_path)) == expected


def test_a_copied_folder_goes_on_from_where_it_was(tmp_path):
    # Copying has given them times in the order of their names.
    checkpoint(tmp_path / 'new', 'epoch_10.pth', age=20)
    checkpoint(tmp_path / 'new', 'epoch_9.pth', age=10)
    (tmp_path / 'new' / 'last_checkpoint').write_text('/old/epoch_10.pth')
    found = names(config(tmp_path / 'new'))
    assert found == ['epoch_10.pth', 'epoch_9.pth']


def test_names_and_folder_are_those_of_the_hook(tmp_path):
    checkpoint(tmp_path / 'out' / 'run', 'step7.pth', age=0)
    checkpoint(tmp_path / 'out' / 'run', 'epoch_8.pth', age=0)
    settings = dict(
        by_epoch=False, filename_tmpl='step{}.pth', out_dir=f'{tmp_path}/out'
    )
    assert names(config(tmp_path / 'run', **settings)) == ['step7.pth']
    with pytest.raises(ValueError, match=r'look into s3://x: .*--resume CHE'):
        candidates(config(tmp_path, out_dir='s3://x'))


def test_the_damaged_one_is_named_with_the_reason(tmp_path, capsys):
    checkpoint(tmp_path, 'epoch_1.pth', age=20)
    checkpoint(tmp_path, 'epoch_2.pth', age=10, message_hub=None)
    settings = config(tmp_path)
    prepare_resume(settings)
    said = capsys.readouterr().out
    assert 'Passed over epoch_2.pth: ' in said
    assert 'it has no message_hub' in said
    assert settings.load_from == str(tmp_path / 'epoch_1.pth')
    assert settings.resume
    # The order of the data is made from the seed of the run.
    assert settings.randomness.seed == 9


def test_a_seed_of_the_config_is_kept(tmp_path):
    checkpoint(tmp_path, 'epoch_1.pth', age=20)
    settings = config(tmp_path)
    settings.randomness = dict(seed=5)
    prepare_resume(settings)
    assert settings.randomness.seed == 5


def test_a_given_checkpoint_is_taken_or_refused(tmp_path):
    checkpoint(tmp_path, 'epoch_1.pth', age=20)
    checkpoint(tmp_path, 'epoch_2.pth', age=10)
    settings = config(tmp_path)
    settings.load_from = str(tmp_path / 'epoch_1.pth')
    prepare_resume(settings)
    assert settings.load_from == str(tmp_path / 'epoch_1.pth')
    settings.load_from = str(tmp_path / 'gone.pth')
    with pytest.raises(FileNotFoundError, match='gone.pth.* does not exist'):
        prepare_resume(settings)
    (tmp_path / 'gone.pth').write_bytes(b'PK')
    with pytest.raises(ValueError, match='gone.pth'):
        prepare_resume(settings)


def test_a_state_without_its_optimizer_is_told(tmp_path, capsys):
    checkpoint(tmp_path, 'epoch_1.pth', age=20)
    content = torch.load(tmp_path / 'epoch_1.pth')
    del content['optimizer']
    torch.save(content, tmp_path / 'epoch_1.pth')
    prepare_resume(config(tmp_path))
    assert 'without optimizer and param_schedulers' in capsys.readouterr().out


def test_nothing_happens_without_resume(tmp_path):
    settings = config(tmp_path)
    settings.resume = False
    prepare_resume(settings)
    assert settings.load_from is None
    settings.resume = True
    prepare_resume(settings)
    assert not settings.resume


@pytest.mark.parametrize(
    'kind', ['CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook]
)
def test_any_config_gets_the_robust_hooks(kind):
    settings = config('x', interval=7, max_keep_ckpts=2)
    settings.default_hooks.checkpoint.type = kind
    use_robust_hooks(settings)
    use_robust_hooks(settings)
    assert settings.default_hooks.checkpoint == dict(
        type='mmrkkd.AtomicCheckpointHook', interval=7, max_keep_ckpts=2
    )
    assert settings.custom_hooks == [
        dict(type='mmrkkd.RunStateHook'),
        dict(type='mmrkkd.NonFiniteHook'),
    ]


def test_a_config_without_hooks_saves_as_often_as_mmengine_does():
    settings = Config(dict(work_dir='x'))
    use_robust_hooks(settings)
    assert settings.default_hooks.checkpoint.interval == 1


def test_choices_of_a_config_are_kept():
    guard = dict(type='NonFiniteHook', action='skip')
    settings = Config(
        dict(
            default_hooks=dict(checkpoint=None),
            custom_hooks=[guard, dict(type='EMAHook')],
        )
    )
    use_robust_hooks(settings)
    assert settings.default_hooks.checkpoint is None
    assert settings.custom_hooks[:2] == [guard, dict(type='EMAHook')]
    assert settings.custom_hooks[2:] == [dict(type='mmrkkd.RunStateHook')]
    other = config('x')
    other.default_hooks.checkpoint.type = 'MyCheckpointHook'
    use_robust_hooks(other)
    assert other.default_hooks.checkpoint.type == 'MyCheckpointHook'
    flexible = Config(dict(runner_type='FlexibleRunner'))
    use_robust_hooks(flexible)
    assert 'custom_hooks' not in flexible


def test_a_template_with_a_format(tmp_path):
    for epoch in (9, 10):
        checkpoint(tmp_path, f'epoch_{epoch:03d}.pth', age=20 - epoch)
    found = names(config(tmp_path, filename_tmpl='epoch_{:03d}.pth'))
    assert found == ['epoch_010.pth', 'epoch_009.pth']


def test_what_the_run_wrote_last_is_there_whatever_it_is_called(tmp_path):
    checkpoint(tmp_path, 'epoch_1.pth', age=20)
    checkpoint(tmp_path, 'end.pth', age=30)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'end.pth'))
    assert names(config(tmp_path)) == ['end.pth', 'epoch_1.pth']


def test_the_folder_of_the_hook_in_another_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / 'run', 'epoch_1.pth', age=20)
    found = names(config('run', out_dir=str(tmp_path / 'run')))
    assert found == ['epoch_1.pth']
