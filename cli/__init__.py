"""The command line; installed under the name ``riformer_deploy_cli``."""
