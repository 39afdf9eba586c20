"""Lines booked on the placeholder item because the ERP had no item with their SKU. Pure."""

from __future__ import annotations

from dataclasses import replace

from sink.erp.kinds import ErpRecord, Fields


def as_booked(desired: ErpRecord, applied: ErpRecord, there: ErpRecord, placeholder: str) -> ErpRecord:
    """What the ERP should have of an order whose lines it can no longer change: a line booked on the placeholder stays
    on it. A line that a person has booked on the right item (`there`) is as the shop wants it."""
    if not placeholder or "line" not in desired.parts:
        return desired
    before, now = applied.parts.get("line", {}), there.parts.get("line", {})

    def booked(key: str, line: Fields) -> Fields:
        was = before.get(key, {})
        stays = was.get("sku") == placeholder and now.get(key, {}).get("sku") != line.get("sku")
        return {**line, "sku": placeholder, "name": was.get("name")} if stays else line

    lines = {key: booked(key, line) for key, line in desired.parts["line"].items()}
    return replace(desired, parts={**desired.parts, "line": lines})
