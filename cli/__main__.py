"""``python -m riformer_deploy_cli``, or ``python -m cli`` from a checkout."""

from .main import run

run()
