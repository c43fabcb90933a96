"""The records that experiments leave: their types, their provenance, and how they are written and read.

Types decide: the schemas in spec/schemas are made of them (`python -m emperf.records`).
"""

from emperf.records.files import KINDS, check, finish, kind_in, read

__all__ = ["KINDS", "check", "finish", "kind_in", "read"]
