"""Results as tables, for people: one module a command."""
