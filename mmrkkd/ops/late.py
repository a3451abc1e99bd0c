"""Answers of a device that are read when they are there."""

import torch
from torch import Tensor


class LateFlag:
    """A yes or no of the device, asked for now and read later.

    The answer is copied to the host's memory behind what is queued. Who reads
    it waits for the work up to the question, and not for what was queued
    since: the device has that to do in the meantime and never idles.
    """

    def __init__(self) -> None:
        self._answer: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def __reduce__(self) -> tuple:
        # A copy has asked nothing: an event belongs to its process.
        return LateFlag, ()

    def ask(self, flag: Tensor) -> None:
        """Sends a flag on its way; an answer not yet read is forgotten.

        Args:
            flag: A scalar, bool.
        """
        self._copied = None
        if flag.device.type != 'cuda':
            self._answer = flag.detach()
            return
        self._answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        self._answer.copy_(flag.detach(), non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()

    def answer(self) -> bool | None:
        """The answer, once; None where nothing was asked."""
        if self._answer is None:
            return None
        if self._copied is not None:
            self._copied.synchronize()
        answer, self._answer, self._copied = bool(self._answer), None, None
        return answer
