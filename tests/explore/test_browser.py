"""The explorer in a real browser: every action, as a user does it."""

from __future__ import annotations

import browser as real


def test_heads_are_seen_and_one_is_opened_by_the_keyboard(page, address):
    page.goto(address)
    page.locator("[role=gridcell][tabindex='0']").focus()  # its one stop, the embedding
    for key in ("ArrowDown", "ArrowDown", "Home", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.get_by_role("heading", name="Head 1.1", exact=True).wait_for()
    assert "unit=1.1" in page.url
    page.get_by_role("heading", name="How it varies").wait_for()
    assert real.faults(page) == []
