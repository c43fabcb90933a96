"""The records' JSON Schemas, made of their types."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from emperf.records.files import TYPES

DRAFT = "https://json-schema.org/draft/2020-12/schema"


class Plain(GenerateJsonSchema):
    """Without what a reader has no use for: names of Python classes, and the defaults of what may be left out."""

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        whole = super().generate(schema, mode)
        for part in whole.get("$defs", {}).values():
            part.pop("title", None)
        return whole

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def text(kind: str) -> str:
    """The content of spec/schemas/KIND.schema.json."""
    made = TYPES[kind].model_json_schema(schema_generator=Plain)
    named = {"$schema": DRAFT, "$id": f"{kind}.schema.json"} | one_line(made)
    return json.dumps(named, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def one_line(part: Any) -> Any:
    """The same with every description as one line."""
    if isinstance(part, list):
        return [one_line(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        name: " ".join(one.split()) if name == "description" and isinstance(one, str) else one_line(one)
        for name, one in part.items()
    }
