"""Stand-ins for what needs a GPU; each refuses what the real thing refuses."""
