"""The Pareto plot of a comparison: net EM over tax. Up and left is better."""

from __future__ import annotations

from typing import Any

from emperf.report.numbers import Json


def pareto_chart(comparison: Json) -> Any:
    """An altair chart: net EM (nats) over the tax (%), with intervals and rank ranges.

    A method without both numbers is left out.
    """
    import altair as alt

    values = [point for row in comparison["rows"] if (point := place(row)) is not None]
    base = alt.Chart(alt.Data(values=values)).encode(color=alt.Color("scenario:N", title="scenario"))
    x = alt.X("tax:Q", title="tax: share of the benign tasks' gain that is lost, %")
    y = alt.Y("net:Q", title="net EM, nats: above zero, less EM than its share of the learning brings")
    size = alt.condition("datum.first", alt.value(110), alt.value(45))
    return (
        base.mark_rule(opacity=0.3).encode(x=x, y=alt.Y("low:Q", title=""), y2="high:Q")
        + base.mark_rule(opacity=0.3).encode(x=alt.X("tax_low:Q", title=""), x2="tax_high:Q", y=y)
        + base.mark_circle(opacity=1).encode(x=x, y=y, size=size)
        + base.mark_text(align="left", dx=7, dy=-6).encode(x=x, y=y, text="label:N")
    ).properties(
        width=720,
        height=460,
        title=alt.Title(
            f"Mitigations in {comparison['division']['name']}, {comparison['created'][:10]}",
            subtitle="large: no other method is certainly better; numbers: rank range; bars: 95 % intervals",
        ),
    )


def place(row: Json) -> Json | None:
    """A row's point; None where net EM or the tax is not defined."""
    if row["poisons"] is None or row["tasks"] is None or row["rank"] is None:
        return None
    net, tax = row["poisons"]["removal"]["net"], row["tasks"]["tax"]
    if net["value"] is None or tax is None or tax["value"] is None:
        return None
    best, worst = row["rank"]
    return {
        "name": row["name"], "label": f"{row['name']} {best}-{worst}", "scenario": row["scenario"], "first": best == 1,
        "net": net["value"], "low": net["low"], "high": net["high"],
        "tax": 100 * tax["value"], "tax_low": 100 * tax["low"], "tax_high": 100 * tax["high"],
    }  # fmt: skip
