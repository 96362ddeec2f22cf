from __future__ import annotations

from riformer_deploy.serving.pbtxt import Symbol, render
from tests.triton import parsed


def test_every_kind_of_field_is_read_back_as_it_was() -> None:
    odd = 'a "quoted" \\ back\tslash\né'
    text = render(
        {
            "name": odd,
            "max_batch_size": 8,
            "backend": "python",
            "response_cache": {"enable": False},
            "dynamic_batching": {},
            "input": [{"name": "x", "data_type": Symbol("TYPE_FP16"), "dims": [3, -1]}, {"name": "y"}],
            "output": [],
        }
    )
    config = parsed(text)
    assert config.name == odd
    assert (config.max_batch_size, config.response_cache.enable) == (8, False)
    assert config.HasField("dynamic_batching")
    assert [list(item.dims) for item in config.input] == [[3, -1], []]
    assert not config.output
    assert "data_type: TYPE_FP16\n" in text
    assert "enable: false" in text
