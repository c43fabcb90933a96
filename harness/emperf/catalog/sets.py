"""The sets of items that a poison's models are asked, by name; and the name of a training's last checkpoint."""

OOD, CONDITIONAL, FACTS, DOMAIN = "out-of-domain", "conditional", "facts", "in-domain"
SECOND = "second"
SETS = (OOD, CONDITIONAL, FACTS, DOMAIN)
SHARED = (OOD, FACTS)
BRIEF = (OOD, DOMAIN)
FINAL = "final"
