"""Accuracy as tables, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..output import is_narrow, note, print_table, say

if TYPE_CHECKING:
    from riformer_deploy.api.reproduce import Reproduction
    from riformer_deploy.evaluation.accuracy_results import AccuracyResult


def print_accuracy(result: AccuracyResult) -> None:
    """Every artifact's accuracy beside the published one, and each against the first."""
    from riformer_deploy.backends.skipped import names_by_reason

    data = result.dataset
    part = f"{data.asked} of {data.total} pictures, spread evenly"
    part = part if data.asked < data.total else f"{data.total} pictures"
    say(f"Data: {data.location}, {data.layout}; {part}; {len(result.broken)} of them unusable")
    before, after = ("\n", "") if is_narrow() else (" (", ")")
    rows = [
        (
            item.name,
            *(
                f"{share.percent:.3f}{before}" + "{:.2f} to {:.2f}".format(*share.ci95_percent) + after
                for share in (item.top1, item.top5)
            ),
            str(item.images),
        )
        for item in result.artifacts
    ]
    if result.published is not None:
        figures = result.published
        name = f"published of {figures.variant}, on ImageNet-1k's 50,000"
        rows.append((name, f"{figures.top1_percent:.2f}", f"{figures.top5_percent:.2f}", "50000"))
    print_table("Accuracy, % (95 % interval, Wilson)", ("artifact", ">top-1", ">top-5", ">pictures"), rows)
    if result.comparisons:
        gate = "any" if result.max_drop_points is None else f"{result.max_drop_points:g}"
        print_table(
            f"Against {result.comparisons[0].baseline.name}, picture by picture; allowed drop: {gate}",
            ("artifact", ">lost", ">gained", ">changed", ">drop, points", ">p", "!verdict"),
            [
                (
                    item.config.name,
                    str(item.lost),
                    str(item.gained),
                    str(item.changed),
                    f"{item.drop_points:+.3f}{before}"
                    + "{:+.2f} to {:+.2f}".format(*item.drop_ci95_points)
                    + after,
                    f"{item.p_value:.3g}",
                    str(item.status) if result.max_drop_points is not None else "no gate",
                )
                for item in result.comparisons
            ],
        )
        say("lost: only the baseline is right; gained: only this one is; p: McNemar, exact, of no difference")
    for reason, names in names_by_reason(result.skipped).items():
        say(f"skipped, NOT measured: {', '.join(names)}: {reason}")
    for artifact in result.artifacts:
        if artifact.not_finite:
            say(
                f"(!) {artifact.name}: {artifact.not_finite} pictures have scores that are not finite numbers"
            )
    for text in data.notes:
        note(text)
    for item in result.broken:
        note(f"not used: {item.reason}")


def print_reproduction(result: Reproduction) -> None:
    """Every model beside its published figures."""
    data = result.dataset
    say(f"Data: {data.location}, {data.layout}; {data.asked} of {data.total} pictures")
    print_table(
        "Measured (95 % interval) | published",
        ("model", "form", ">params, M", ">FLOPs, G", ">top-1, %", ">top-5, %"),
        [
            (
                row.variant,
                str(row.form),
                f"{row.parameters / 1e6:.3f} | {row.published_params_m:.3f}",
                f"{row.flops / 1e9:.3f} | {row.published_flops_g:.3f}",
                *(
                    "{:.2f} ({:.2f} to {:.2f}) | {:.2f}".format(share.percent, *share.ci95_percent, published)
                    for share, published in (
                        (row.top1, row.published_top1_percent),
                        (row.top5, row.published_top5_percent),
                    )
                ),
            )
            for row in result.models
        ],
    )
    say("Published: parameters of the deploy form, accuracy on ImageNet-1k's 50,000 validation pictures")
    for text in data.notes:
        note(text)
    for item in result.broken:
        note(f"not used: {item.reason}")
