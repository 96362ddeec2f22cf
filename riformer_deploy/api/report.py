"""`report`: what was measured of a bundle, as one HTML file and a model card."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.bundle.results import recording_failures, store_pages
from riformer_deploy.bundle.store import MOST_RESULT_BYTES, Bundle
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.files import read_regular
from riformer_deploy.common.foreign_data import reason_of
from riformer_deploy.common.replacing import replacing
from riformer_deploy.common.serialization import load_json
from riformer_deploy.quantization.sensitivity import SensitivityReport
from riformer_deploy.reporting.evidence import read_evidence
from riformer_deploy.reporting.html import render_html
from riformer_deploy.reporting.model_card import render_model_card

__all__ = ["ReportFiles", "ReportOptions", "report_bundle"]

HTML, CARD = "report.html", "MODEL_CARD.md"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report shows beyond the bundle's records, and where it goes.

    Attributes:
        output: The HTML file; None for ``report.html`` in the bundle.
        data: The folder or ``.npz`` file of the accuracy pass's pictures, for thumbnails of mistakes; None
            shows none.
        sensitivity: What ``sensitivity --json`` printed; None leaves that part out.
        force: Replace ``output`` if it exists; that of the bundle is always replaced.
    """

    output: Path | str | None = None
    data: Path | str | None = None
    sensitivity: Path | str | None = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """What was written.

    Attributes:
        html: The report.
        size_bytes: Its size.
        model_card: The model card, in the bundle.
    """

    html: str
    size_bytes: int
    model_card: str


def report_bundle(directory: Path | str, options: ReportOptions | None = None) -> ReportFiles:
    """``report``: write a bundle's report, and its model card into it.

    Args:
        directory: The bundle.
        options: What else it shows, and where it goes.

    Raises:
        BundleError: It is not a bundle, or a result in it is not valid.
        BundleIntegrityError: A result in it was changed.
        MissingDependencyError: Jinja2 or matplotlib is not installed.
        OptionError: ``output`` exists already, a file cannot be read or written, or ``data`` is
            not what accuracy was measured on.
    """
    options = options or ReportOptions()
    bundle = Bundle.open(Path(directory))
    output = None if options.output is None else Path(options.output)
    if output is not None and output.exists() and not options.force:
        raise OptionError(f"{output} exists already.", remedy="Use --force to replace it.")
    if options.data is not None and not Path(options.data).exists():
        raise OptionError(f"{options.data} is no folder of pictures and no .npz file.")
    evidence = read_evidence(bundle.directory)
    data = None if options.data is None else Path(options.data)
    html = render_html(evidence, data=data, sensitivity=_sensitivity(options.sensitivity))
    pages = {CARD: render_model_card(evidence)}
    if output is None:
        pages[HTML] = html
    else:
        try:
            with replacing(output) as partial:
                partial.write_text(html, encoding="utf-8")
        except OSError as err:
            raise OptionError(f"{output} cannot be written: {err.strerror}") from err
    with recording_failures("report"):
        store_pages(bundle, pages)
    return ReportFiles(
        html=os.fspath(output or bundle.directory / HTML),
        size_bytes=len(html.encode()),
        model_card=str(bundle.directory / CARD),
    )


def _sensitivity(path: Path | str | None) -> SensitivityReport | None:
    if path is None:
        return None
    try:
        text = read_regular(Path(path), MOST_RESULT_BYTES).decode("utf-8")
        return load_json(SensitivityReport, text)
    except (OSError, ValueError) as err:  # a null in the name; no text; no record
        raise OptionError(
            f"{path} is not what `riformer-deploy sensitivity --json` prints: {reason_of(err)}",
            remedy="Make it with: riformer-deploy sensitivity BUNDLE --json > FILE",
        ) from err
