"""``riformer-deploy reparameterize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from .fuse import fuse


def reparameterize(
    config: options.ConfigArgument,
    source: Annotated[
        str,
        typer.Argument(metavar="SRC_CKPT", help="A checkpoint, as training left it.", show_default=False),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET_CKPT", help="The file to write.", show_default=False)
    ],
    weights: options.Weights = None,
    key: options.Key = None,
    force: Annotated[bool, typer.Option("--force", help="Replace TARGET_CKPT if it exists.")] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """The same as fuse, with the arguments of mmpretrain's tool."""
    fuse(source, target, config=config, weights=weights, key=key, force=force, json=json, debug=debug)
