"""Runs the stages of an installation and shows how they go."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time

from .choices import ROOT, InstallError


def ninja_progress(line):
    """'12/78' out of a line of compiler output, else None."""
    match = re.match(r'\s*\[(\d+/\d+)\]', line)
    return match[1] if match else None


class Journal:
    """Prints the stages and keeps the full output of each in a file."""

    def __init__(self, folder):
        self.folder = folder
        self.start = time.monotonic()
        self.number = 0

    def say(self, text):
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        print(f'[{minutes:2d}:{seconds:02d}] {text}', flush=True)

    def run(self, title, command, env=None, cwd=ROOT, hint=''):
        """Run one stage; its output goes to the log.

        Raises:
            InstallError: it failed. The message holds the end of the log.
        """
        self.number += 1
        self.say(title)
        self.folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r'\W+', '-', title.split(' (')[0]).strip('-').lower()
        log = self.folder / f'{self.number:02d}-{name}.log'
        with open(log, 'w', encoding='utf-8', errors='replace') as file:
            status = self._status(
                log,
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
            )
        if status:
            lines = log.read_text(encoding='utf-8', errors='replace')
            tail = '\n'.join(f'    {ln}' for ln in lines.splitlines()[-15:])
            raise InstallError(
                f'{title}: failed (exit status {status}). The last lines:\n'
                f'{tail}\nThe whole log: {log}\n'
                + (
                    hint
                    or 'Mend that and run make install again; it goes on '
                    'from here.'
                )
            )
        return log

    def _status(self, log, command, **options):
        """The exit status of a command that ends with us, compilers too."""
        done = threading.Event()
        watcher = threading.Thread(
            target=self._watch, args=(log, done), daemon=True
        )
        # Ctrl-C waits, in both threads, until there is a group to end.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            watcher.start()
            process = subprocess.Popen(
                command, start_new_session=True, **options
            )
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                return process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            done.set()
            watcher.join()

    def _watch(self, log, done):
        """Shows every half minute that a long stage is alive."""
        while not done.wait(30):
            lines = log.read_text(errors='replace').splitlines()[-400:]
            steps = [s for s in map(ninja_progress, lines) if s]
            doing = f'compiled {steps[-1]} files' if steps else 'still at it'
            self.say(f'  ... {doing}')
