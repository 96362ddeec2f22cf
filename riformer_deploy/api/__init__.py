"""One module a command; what `riformer_deploy` hands on."""
