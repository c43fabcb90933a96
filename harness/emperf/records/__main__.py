"""`python -m emperf.records`: write spec/schemas/*.schema.json of every record anew, from its type."""

from emperf.core import paths
from emperf.records.files import TYPES
from emperf.records.schema import text

for kind in TYPES:
    path = paths.project_folder("spec") / "schemas" / f"{kind}.schema.json"
    path.write_text(text(kind), encoding="utf-8")
    print(path)
