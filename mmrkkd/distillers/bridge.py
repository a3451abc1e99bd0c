"""From the student's network input to the teacher's, exactly."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PreprocessBridge:
    """Turns a batch preprocessed for the student into one for the teacher.

    Both preprocessors see the same image x and compute
    ``y = (flip(x) - mean) / std`` and pad, so

    ::

        y_t = flip(y_s) std_s / std_t + (mean_s - mean_t) / std_t

    where the channels are flipped if just one of the two converts BGR to
    RGB (or back), and mean_s, std_s are then in the flipped order. What was
    padding becomes the teacher's own padding, of the teacher's own size
    unless the student's is to be kept.
    Where the preprocessors agree, the batch is handed on untouched. Images
    may have any number of channels; it stays what it is.

    Args:
        student: The student's data preprocessor: an ``ImgDataPreprocessor``
            of MMEngine or a relative of it (MMDetection's, MMPretrain's).
        teacher: The teacher's.
        keeps_size: Keep the student's padded size, as the cells of a grid
            want it. Defaults to False: what the teacher's would give.

    Raises:
        ValueError: mean and std are of images with another number of
            channels on each side.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, keeps_size: bool = False
    ) -> None:
        student_mean, student_std = _normalisation(student)
        teacher_mean, teacher_std = _normalisation(teacher)
        # One value is for all channels, or for the only one.
        channels = {len(student_mean), len(teacher_mean)} - {1}
        if len(channels) > 1:
            raise ValueError(
                "the student's data_preprocessor is for images of "
                f"{len(student_mean)} channels, the teacher's for "
                f'{len(teacher_mean)} (values in mean and std): one image '
                'cannot be turned into the other. Use a teacher of images '
                "with the student's channels"
            )
        self.channels = channels.pop() if channels else None
        self.flips = _flips(student) != _flips(teacher)
        # MMPretrain leaves images of other numbers of channels as they are.
        self.wants_three = getattr(teacher, '_channel_conversion', False)
        if self.flips and len(student_mean) == 3:
            student_mean = student_mean.flip(0)
            student_std = student_std.flip(0)
        self.values = (
            'mean and std'
            if getattr(teacher, '_enable_normalize', False)
            else 'mean and std (the teacher normalises nothing: it sees raw '
            'pixel values)'
        )
        # In float64, because the quotients are used for every pixel.
        self.scale = (student_std / teacher_std).reshape(-1, 1, 1)
        self.shift = ((student_mean - teacher_mean) / teacher_std).reshape(
            -1, 1, 1
        )
        self._sent: dict[tuple, tuple[Tensor, Tensor]] = {}
        self.converts = bool(
            (self.scale != 1).any() or (self.shift != 0).any()
        )
        self.pad_value = float(getattr(teacher, 'pad_value', 0))
        self.divisor = int(getattr(teacher, 'pad_size_divisor', 1))
        self.same_size = keeps_size or self.divisor == int(
            getattr(student, 'pad_size_divisor', 1)
        )
        self.same_padding = self.same_size and self.pad_value == float(
            getattr(student, 'pad_value', 0)
        )

    @property
    def is_identity(self) -> bool:
        """Whether teacher and student want the very same input."""
        return not (self.flips or self.converts) and self.same_padding

    def __call__(self, inputs: Tensor, data_samples: Sequence) -> Tensor:
        """Converts a batch.

        Args:
            inputs: (N, C, H, W), the student's input.
            data_samples: N samples; ``img_shape`` in their metainfo is the
                (height, width) of the image inside the padding. A sample
                without it fills its frame.

        Returns:
            (N, C, H', W') in the dtype of ``inputs``; H' = H and W' = W
            unless the teacher pads to other multiples.

        Raises:
            ValueError: one of the preprocessors is for images with another
                number of channels.
        """
        if self.is_identity:
            return inputs
        self._check_channels(inputs.shape[1])
        flips = self.flips and inputs.shape[1] == 3
        converted = inputs.flip(1) if flips else inputs
        if self.converts:
            # Float32 at least: half precision has no room for a mean.
            dtype = torch.promote_types(inputs.dtype, torch.float32)
            scale, shift = self._quotients(inputs.device, dtype)
            converted = converted.to(dtype) * scale + shift
            converted = converted.to(inputs.dtype)
        shapes = [
            _image_shape(sample, inputs.shape[-2:]) for sample in data_samples
        ]
        if self.same_padding and all(
            shape == tuple(inputs.shape[-2:]) for shape in shapes
        ):
            return converted
        return self._repadded(converted, shapes)

    def _quotients(
        self, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Scale and shift where they are needed, sent there once."""
        if (device, dtype) not in self._sent:
            self._sent[device, dtype] = tuple(
                each.to(device, dtype) for each in (self.scale, self.shift)
            )
        return self._sent[device, dtype]

    def _check_channels(self, channels: int) -> None:
        if self.channels not in (None, channels):
            raise ValueError(
                f'the images have {channels} channels, mean and std of a '
                f'data_preprocessor {self.channels} values. Load images of '
                f'{self.channels} channels (color_type of '
                'LoadImageFromFile), or use a teacher of such images'
            )
        if self.wants_three and channels != 3:
            raise ValueError(
                f'the images have {channels} channels, and the teacher '
                'converts its own between BGR and RGB (bgr_to_rgb or '
                'rgb_to_bgr of its data_preprocessor). Use a teacher of '
                f'images of {channels} channels'
            )

    def _repadded(
        self, images: Tensor, shapes: list[tuple[int, int]]
    ) -> Tensor:
        height, width = images.shape[-2:]
        if not self.same_size:
            height = _next_multiple(max(h for h, _ in shapes), self.divisor)
            width = _next_multiple(max(w for _, w in shapes), self.divisor)
        padded = images.new_full(
            (*images.shape[:2], height, width), self.pad_value
        )
        for image, target, (h, w) in zip(images, padded, shapes, strict=True):
            target[:, :h, :w] = image[:, :h, :w]
        return padded

    def __repr__(self) -> str:
        if self.is_identity:
            return 'same input for both'
        changes = [
            name
            for name, active in (
                ('channel order', self.flips),
                (self.values, self.converts),
                ('padding', not self.same_padding),
            )
            if active
        ]
        return f'converts {", ".join(changes)}'


def _flips(preprocessor: nn.Module) -> bool:
    # MMPretrain's classifiers say to_rgb, the others note any conversion.
    return bool(
        getattr(preprocessor, '_channel_conversion', False)
        or getattr(preprocessor, 'to_rgb', False)
    )


def _normalisation(preprocessor: nn.Module) -> Sequence[Tensor]:
    """Mean and std, a value for each channel or one for all."""
    if not getattr(preprocessor, '_enable_normalize', False):
        return (
            torch.zeros(1, dtype=torch.float64),
            torch.ones(1, dtype=torch.float64),
        )
    return torch.broadcast_tensors(
        preprocessor.mean.detach().flatten().double().cpu(),
        preprocessor.std.detach().flatten().double().cpu(),
    )


def _image_shape(sample: object, frame: Sequence[int]) -> tuple[int, int]:
    shape = getattr(sample, 'metainfo', {}).get('img_shape', frame)
    return min(int(shape[0]), frame[0]), min(int(shape[1]), frame[1])


def _next_multiple(size: int, divisor: int) -> int:
    return -(-size // divisor) * divisor
