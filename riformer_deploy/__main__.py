"""``python -m riformer_deploy``: the command line, which the library itself never imports."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("riformer_deploy_cli", run_name="__main__")
