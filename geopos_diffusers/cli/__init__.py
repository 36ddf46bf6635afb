"""The `geopos` command: one file per sub-command."""
