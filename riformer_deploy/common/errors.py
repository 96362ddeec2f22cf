"""Every error that the toolkit raises on purpose, each kind with its own exit code.

::

    RIFormerDeployError                70
    ├── OptionError                     2   an option that cannot be honoured
    ├── CheckpointError
    │   ├── CheckpointUnreadableError  10   missing, empty, truncated or not PyTorch
    │   ├── CheckpointUnsafeError      11   asks for code outside the training frameworks
    │   ├── CheckpointKeysError        12   missing, unexpected, mis-shaped or mixed keys
    │   ├── CheckpointValuesError      13   weights that are not finite floating-point numbers
    │   ├── NotRIFormerError           14   the weights of another architecture
    │   └── CheckpointMismatchError    15   contradicts what was asked for or is computed here
    ├── MissingDependencyError         20   an optional package is absent or too old
    ├── BundleError                    30   not a bundle, or its manifest is invalid
    │   ├── BundleIntegrityError       31   a file is not the one the manifest recorded
    │   ├── BundleConflictError        32   would replace somebody else's work
    │   └── BundleChangedError         33   another process replaced it meanwhile
    ├── ExportError                    40   ONNX export, simplification or checking failed
    ├── GateError                       1   no choice of quantised layers holds the gate
    ├── CalibrationError               41   calibration images are missing or unusable
    ├── EngineBuildError               42   TensorRT could not parse a graph or build an engine
    ├── RuntimeFailureError            50   a backend could not load or run a model
    ├── EngineUnfitError               51   preflight: an engine does not fit this machine
    ├── ImageError                     60   a picture cannot be decoded, or not be brought to size
    ├── DatasetError                   61   a folder of pictures or .npz cannot be used as asked
    └── DownloadError                  62   a published file could not be fetched whole

Exit code 0 is success, 1 a gate that did not hold (a result, not an error), 2 a wrong command
line, 70 a defect of the toolkit itself and 130 an interruption.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class RIFormerDeployError(Exception):
    """Root of the tree.

    Args:
        message: One sentence or more: what was being done, to which file or tensor, what was got
            and what was expected.
        details: Every single finding, one per entry; nothing is cut.
        remedy: What to do next.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, details: Sequence[str] = (), remedy: str = "") -> None:
        self.message = message
        self.details = tuple(details)
        self.remedy = remedy
        parts = [message, *(f"  - {detail}" for detail in self.details), *([remedy] if remedy else [])]
        # Lines within a part are indented: a text from elsewhere cannot begin a message of ours.
        super().__init__("\n".join(part.replace("\n", "\n    ") for part in parts))

    def __reduce__(self) -> tuple[object, ...]:
        """As its parts, so that one of another process is told as it was there."""
        return _rebuilt, (type(self), self.message, self.details, self.remedy)


def _rebuilt(
    kind: type[RIFormerDeployError], message: str, details: tuple[str, ...], remedy: str
) -> RIFormerDeployError:
    return kind(message, details=details, remedy=remedy)


class OptionError(RIFormerDeployError):
    """An option's value cannot be honoured."""

    exit_code = 2


class CheckpointError(RIFormerDeployError):
    """A checkpoint cannot be used."""


class CheckpointUnreadableError(CheckpointError):
    """The file is missing, empty, truncated or not a PyTorch checkpoint."""

    exit_code = 10


class CheckpointUnsafeError(CheckpointError):
    """The file asks for code that no training framework needs."""

    exit_code = 11


class CheckpointKeysError(CheckpointError):
    """Keys are missing, unexpected, mis-shaped, or mix the training and the deploy form."""

    exit_code = 12


class CheckpointValuesError(CheckpointError):
    """A weight is NaN, infinite or not floating-point, or becomes infinite when it is fused."""

    exit_code = 13


class NotRIFormerError(CheckpointError):
    """The weights belong to another architecture."""

    exit_code = 14


class CheckpointMismatchError(CheckpointError):
    """The weights contradict what was asked for, or the stored config what is computed here."""

    exit_code = 15


class MissingDependencyError(RIFormerDeployError):
    """An optional package is absent, too old or cannot be imported."""

    exit_code = 20


class BundleError(RIFormerDeployError):
    """A folder is not a bundle, or its manifest is invalid."""

    exit_code = 30


class BundleIntegrityError(BundleError):
    """A file of a bundle is missing or no longer has the recorded sha256."""

    exit_code = 31


class BundleConflictError(BundleError):
    """Writing would replace files that are not ours to replace."""

    exit_code = 32


class BundleChangedError(BundleError):
    """Another process replaced the bundle while it was in use."""

    exit_code = 33


class ExportError(RIFormerDeployError):
    """ONNX export, simplification or checking failed."""

    exit_code = 40


class GateError(RIFormerDeployError):
    """A gate that was asked for cannot be held, whatever is excluded."""

    exit_code = 1


class CalibrationError(RIFormerDeployError):
    """Calibration images are missing, unreadable or not what the model takes."""

    exit_code = 41


class EngineBuildError(RIFormerDeployError):
    """TensorRT could not parse a graph or build an engine of it."""

    exit_code = 42


class EngineUnfitError(RIFormerDeployError):
    """Preflight: an engine does not fit this machine, or is not the file that was built."""

    exit_code = 51


class RuntimeFailureError(RIFormerDeployError):
    """A backend could not load or run a model."""

    exit_code = 50


class ImageError(RIFormerDeployError):
    """A picture cannot be decoded, is too large, or is too small for the crop."""

    exit_code = 60


class DatasetError(RIFormerDeployError):
    """Labelled pictures cannot be found, or their labels do not fit the model's classes."""

    exit_code = 61


class DownloadError(RIFormerDeployError):
    """A published file could not be fetched, or what came is not that file."""

    exit_code = 62
