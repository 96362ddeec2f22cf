from __future__ import annotations

import inspect
import pickle
import re

import pytest

from riformer_deploy.common import errors
from riformer_deploy.common.errors import (
    BundleError,
    CheckpointError,
    GateError,
    OptionError,
    RIFormerDeployError,
)

CLASSES: list[type[RIFormerDeployError]] = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, RIFormerDeployError) and cls.__module__ == errors.__name__
]
DRAWN = {
    match[2]: (len(match[1]) // 4, None if match[3] is None else int(match[3]))
    for line in (errors.__doc__ or "").splitlines()
    if (match := re.fullmatch(r" {4}([ │├└─]*)(\w+Error)(?: +(\d+)(?: .*)?)?", line))
}


def test_the_tree_in_the_docstring_lists_every_class_and_no_other() -> None:
    assert sorted(DRAWN) == sorted(cls.__name__ for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_tree_gives_each_class_its_true_code_and_depth(cls: type[RIFormerDeployError]) -> None:
    depth, code = DRAWN[cls.__name__]
    assert depth == cls.__mro__.index(RIFormerDeployError)
    assert code == (None if cls is CheckpointError else cls.exit_code)


def test_no_two_kinds_of_error_share_an_exit_code() -> None:
    codes = [cls.exit_code for cls in CLASSES if cls is not CheckpointError]
    assert len(set(codes)) == len(codes)
    assert CheckpointError.exit_code == RIFormerDeployError.exit_code


def test_no_error_uses_a_code_that_means_something_else() -> None:
    others = set(CLASSES) - {GateError}  # 1 is a gate that did not hold, wherever that shows
    assert {cls.exit_code for cls in others}.isdisjoint({0, 1, 130})
    assert GateError.exit_code == 1
    assert all(0 < cls.exit_code < 126 for cls in CLASSES)  # the shell takes the rest
    assert OptionError.exit_code == 2


def test_the_message_is_the_text_where_there_is_nothing_else() -> None:
    error = RIFormerDeployError("It failed.")
    assert (str(error), error.details, error.remedy) == ("It failed.", (), "")


def test_details_stand_one_to_a_line_and_the_remedy_last() -> None:
    findings = [f"finding {i}" for i in range(500)]
    error = RIFormerDeployError("It failed.", details=findings, remedy="Do this.")
    assert str(error).splitlines() == ["It failed.", *(f"  - {f}" for f in findings), "Do this."]
    assert error.details == tuple(findings)
    assert (error.message, error.remedy) == ("It failed.", "Do this.")


def test_an_error_of_another_process_is_told_as_it_was_there() -> None:
    error = BundleError("It failed.", details=["one", "two"], remedy="Do this.")
    told = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(told), str(told), told.details) == (BundleError, str(error), error.details)
