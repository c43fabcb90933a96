"""The version of the harness; what a version may change is said in CHANGELOG.md."""

VERSION = "0.1.0"
