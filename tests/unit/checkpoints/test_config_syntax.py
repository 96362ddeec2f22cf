from __future__ import annotations

import ast
from typing import Any

import pytest

from riformer_deploy.checkpoints.config_syntax import Namespace
from riformer_deploy.checkpoints.config_values import UNREAD


def names_of(text: str, **base: Any) -> dict[str, Any]:
    namespace = Namespace(base=base)
    for statement in ast.parse(text).body:
        namespace.run(statement)
    return namespace.names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dict(a=[None, True, -2.5], c={'d': (1, 2)})", {"a": [None, True, -2.5], "c": {"d": [1, 2]}}),
        ("dict(other, c=1)", UNREAD),
        ("dict(**other, c=1)", {"a": [1, 2, 3], "c": 1}),
        ("other['a'][::-1]", [3, 2, 1]),
        ("other['a'][1]", 2),
        ("other['a'][7]", UNREAD),
        ("2 * 128 + 1", 257),
        ("1 / 4", 0.25),
        ("1 / 0", UNREAD),
        ("1e29 * 1e29 * 1e29 + 0", UNREAD),
        ("[1] + [2]", [1, 2]),
        ("[1] * 3", UNREAD),
        ("'a' + 'b'", "ab"),
        ("'{{ fileDirname }}/x'", UNREAD),
        ("_base_.size", 224),
        ("_base_.nothing", UNREAD),
        ("{{_base_.size}}", 224),
        ("copy.deepcopy(other)", {"a": [1, 2, 3]}),
        ("[x for x in other]", UNREAD),
        ("f'{other}'", UNREAD),
        ("__import__('os').system('true')", UNREAD),
        ("unknown", UNREAD),
    ],
)  # fmt: skip
def test_an_expression_is_what_it_spells_or_unread(text: str, expected: Any) -> None:
    found = names_of(f"other = dict(a=[1, 2, 3])\nvalue = {text}", size=224)
    assert found["value"] == expected
    assert type(found["value"]) is type(expected)


def test_imported_classes_are_their_full_names() -> None:
    found = names_of(
        "import torch\nimport torch.nn as nn\nfrom mmpretrain.models import RIFormer as R\n"
        "a, = [1]\nx = [R, nn.GELU, torch.nn.GELU]\nR = 3\ny = R"
    )
    assert found["x"] == ["mmpretrain.models.RIFormer", "torch.nn.GELU", "torch.nn.GELU"]
    assert found["y"] == 3


def test_items_and_attributes_are_assigned_and_methods_are_followed() -> None:
    found = names_of(
        """
model = dict(backbone=dict(arch='s12', norm=dict(type='GN', eps=1)), head=dict(n=1))
steps = [dict(type='A')]
model.backbone.arch = 's24'
model['head']['n'] = 2
model.update(dict(backbone=dict(norm=dict(eps=2))), neck=None)
model.merge(dict(head=dict(_delete_=True, m=3)))
steps.append(dict(type='B'))
steps[0].update(scale=5)
steps.extend([1])
"""
    )
    norm = {"type": "GN", "eps": 2}
    assert found["model"] == {"backbone": {"arch": "s24", "norm": norm}, "head": {"m": 3}, "neck": None}
    assert found["steps"] == [{"type": "A", "scale": 5}, {"type": "B"}, 1]


@pytest.mark.parametrize(
    "statement",
    [
        "for step in steps:\n    step['size'] = 1",
        "if True:\n    steps = []",
        "change(steps)",
        "done = change(steps)",
        "steps.insert(0, 1)",
        "steps.append(unknown)",
        "steps[0]['size'] += 1",
        "steps[unknown] = 1",
        "del steps[0]",
        "steps, other = [], []",
    ],
)
def test_what_is_not_followed_makes_all_that_shares_the_value_unread(statement: str) -> None:
    found = names_of(f"steps = [dict(size=2)]\nloader = dict(pipeline=steps)\nkept = 1\n{statement}")
    assert (found["steps"], found["kept"]) == (UNREAD, 1)
    if not statement.startswith(("if", "steps,")):  # these bind the name anew
        assert found["loader"] is UNREAD
