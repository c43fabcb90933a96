"""The `emperf` command, one file a group of commands."""

from emperf.cli.app import main

__all__ = ["main"]
