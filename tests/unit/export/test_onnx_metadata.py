from __future__ import annotations

import json

import pytest

from riformer_deploy.common.serialization import to_jsonable
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.onnx_metadata import model_metadata, read_model_metadata

PLAIN = Preprocessing(resize_short_edge_px=248, crop_px=(224, 224), source="checkpoint")
NAMES = ("chat", 'b\u00e9b\u00e9 "quoted"', "line\nbreak", "\udcff")


def test_what_is_written_is_read_again_and_is_plain_json() -> None:
    entries = model_metadata(PLAIN, NAMES)
    assert all(text.isascii() for text in entries.values())
    assert json.loads(entries["preprocessing"]) == to_jsonable(PLAIN)
    assert json.loads(entries["class_names"]) == list(NAMES)
    found = read_model_metadata({**entries, "tool_version": "1"})
    assert (found.preprocessing, found.class_names, found.other) == (PLAIN, NAMES, {"tool_version": "1"})
    assert set(model_metadata(PLAIN, None)) == {"preprocessing"}


@pytest.mark.parametrize("names", ["{}", "[1]", '["a", null]', "[", "a,b", "[" * 9999, '"a"'])
@pytest.mark.parametrize("preprocessing", ["resize 224", "{}", "[]", '{"crop_px": [0, 0]}'])
def test_entries_of_another_tool_stay_what_they_are(names: str, preprocessing: str) -> None:
    entries = {"class_names": names, "preprocessing": preprocessing}
    found = read_model_metadata(entries)
    assert (found.preprocessing, found.class_names, found.other) == (None, None, entries)
