"""What an ONNX file says of its model, for readers of that file alone: entries of ``metadata_props``.

``preprocessing`` is a JSON object with the fields of
:class:`~riformer_deploy.data.preprocessing.Preprocessing`, as in ``bundle.json``; ``class_names`` is a JSON
list of text in the order of the outputs, absent where the classes have no names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from riformer_deploy.common.serialization import RecordError, load_json, parse_json, to_jsonable
from riformer_deploy.data.preprocessing import Preprocessing

_PREPROCESSING, _CLASS_NAMES = "preprocessing", "class_names"
MODEL_KEYS = frozenset({_PREPROCESSING, _CLASS_NAMES})


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What the file says of the model.

    Attributes:
        preprocessing: What is to be done to an image first; None where nothing says it in this form.
        class_names: In the order of the outputs; None as for ``preprocessing``.
        other: The other entries, and those that cannot be read, as they are.
    """

    preprocessing: Preprocessing | None
    class_names: tuple[str, ...] | None
    other: dict[str, str]


def model_metadata(preprocessing: Preprocessing, class_names: tuple[str, ...] | None) -> dict[str, str]:
    """The entries for a model; ASCII, and the same text for the same model.

    Args:
        preprocessing: As the bundle records it.
        class_names: In the order of the outputs; None where the classes have none.
    """
    entries = {_PREPROCESSING: json.dumps(to_jsonable(preprocessing), allow_nan=False)}
    if class_names is not None:
        entries[_CLASS_NAMES] = json.dumps(class_names)
    return entries


def read_model_metadata(entries: Mapping[str, str]) -> ModelMetadata:
    """The entries of any file, which others may have written.

    Args:
        entries: ``metadata_props``, by key.
    """
    preprocessing, names = _preprocessing(entries), _class_names(entries)
    read = {
        key for key, value in ((_PREPROCESSING, preprocessing), (_CLASS_NAMES, names)) if value is not None
    }
    other = {key: text for key, text in entries.items() if key not in read}
    return ModelMetadata(preprocessing=preprocessing, class_names=names, other=other)


def _preprocessing(entries: Mapping[str, str]) -> Preprocessing | None:
    try:
        return load_json(Preprocessing, entries.get(_PREPROCESSING, ""))
    except RecordError:  # none, or another tool's
        return None


def _class_names(entries: Mapping[str, str]) -> tuple[str, ...] | None:
    try:
        names = parse_json(entries.get(_CLASS_NAMES, ""))
    except RecordError:
        return None
    if not isinstance(names, list):
        return None
    texts = tuple(name for name in names if isinstance(name, str))
    return texts if len(texts) == len(names) else None
