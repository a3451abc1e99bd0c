"""Checkpoints that survive a kill and a full disk."""

import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio.backends import BaseStorageBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmrkkd.checkpoint.atomic import BACKEND, write_atomically
from mmrkkd.registry import HOOKS


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's checkpoint hook, whose files are never half written.

    A checkpoint is written under another name and renamed when it is
    complete; ``last_checkpoint`` is too, and after it. An old checkpoint,
    or a best one, is removed when the new one is there, not before: with
    ``max_keep_ckpts=1`` the disk must hold two for a moment.

    Args:
        kwargs: Those of :class:`mmengine.hooks.CheckpointHook`. With
            ``backend_args``, ``file_client_args`` or a remote ``out_dir``
            the files are written by that backend, in its way.
    """

    def before_train(self, runner: Runner) -> None:
        """Chooses how files are written.

        Args:
            runner: The runner.
        """
        out_dir = str(self.out_dir or runner.work_dir)
        if (
            self.backend_args is None
            and self.file_client_args is None
            and '://' not in out_dir
        ):
            self.backend_args = dict(backend=BACKEND)
        super().before_train(runner)
        # Of a run that is resumed elsewhere: a better one here is no reason
        # to remove the best one there.
        if hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = self._here(self.best_ckpt_path)
        for name, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            self.best_ckpt_path_dict[name] = self._here(path)

    def _here(self, path: str | None) -> str | None:
        """The file of that name in this run's folder, if there is one."""
        if path is None:
            return None
        name = str(path).rstrip('/').rpartition('/')[2]
        path = self.file_backend.join_path(self.out_dir, name)
        return path if self.file_backend.exists(path) else None

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        outdated = None
        if (
            self.max_keep_ckpts > 0
            and step not in list(self.keep_ckpt_ids)[-1:]
        ):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self._path_of(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            # The list goes into the file, so that a resumed run knows it.
            runner.message_hub.update_info(
                'keep_ckpt_ids', list(self.keep_ckpt_ids)
            )
        self.last_ckpt = self._path_of(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(
                Path(runner.work_dir) / 'last_checkpoint',
                os.fsencode(self.last_ckpt),
            )
            if outdated not in (None, self.last_ckpt):
                _remove(self.file_backend, outdated)

    def _path_of(self, step: int) -> str:
        return self.file_backend.join_path(
            self.out_dir, self.filename_tmpl.format(step)
        )

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend = self.file_backend
        self.file_backend = later = _RemovesLater(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None)}
        best.update(getattr(self, 'best_ckpt_path_dict', {}).values())
        for path in later.removed:
            if path not in best:
                _remove(backend, path)


class _RemovesLater:
    """A file backend that remembers what it was asked to remove."""

    def __init__(self, backend: BaseStorageBackend) -> None:
        self.backend = backend
        self.removed = []

    def remove(self, path: str) -> None:
        self.removed.append(path)

    rmtree = remove

    def __getattr__(self, name: str) -> object:
        return getattr(self.backend, name)


def _remove(backend: BaseStorageBackend, path: str) -> None:
    if backend.isfile(path):
        backend.remove(path)
    elif backend.isdir(path):
        # Sharded checkpoints are folders.
        backend.rmtree(path)
