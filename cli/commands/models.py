"""``riformer-deploy models``."""

from __future__ import annotations

from .. import options, output


def models(json: options.Json = False, debug: options.Debug = False) -> None:
    """List the ten published models; parameters (deploy form) and multiply-adds are computed here."""
    from riformer_deploy.api.models import published_models

    table = published_models()
    if json:
        output.print_json(table)
        return
    output.print_table(
        "Published RIFormer models (ImageNet-1k)",
        ("!model", ">px", ">params (M)", ">FLOPs (G)", ">top-1 %", ">top-5 %"),
        [
            (
                row.name,
                str(row.image_size_px),
                f"{row.parameters / 1e6:.2f}",
                f"{row.flops / 1e9:.2f}",
                f"{row.top1_percent:.2f}",
                f"{row.top5_percent:.2f}",
            )
            for row in table.models
        ],
    )
    output.next_step("export", table.models[0].name)
