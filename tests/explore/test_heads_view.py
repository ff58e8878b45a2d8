"""The page's first view in a real browser: heads by scores and by a text, one opened, and its address."""

from __future__ import annotations

from dataclasses import replace

import browser as real
from browser import asked
from tiny import TinyImages, tiny_encoder

from residual import encode_dataset
from residual.workflows.exploration import Exploration, Sources


def test_a_text_lights_heads_and_every_step_can_be_gone_back(page, address):
    page.goto(address)
    grid = page.get_by_role("grid")
    grid.get_by_role("gridcell", name="head 3.2, accuracy alone").wait_for()

    page.get_by_label("Which head speaks of").fill("red")
    page.get_by_role("heading", name="“red”", exact=True).wait_for()
    assert page.url.endswith("#text=red")
    cell = grid.get_by_role("gridcell", name="head 0.2, “red”")
    cell.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.unit") == "1.3"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Head 1.3", exact=True).wait_for()
    page.get_by_role("heading", name="Pictures with most “red”, to this head").wait_for()
    page.get_by_role("heading", name="How it varies").wait_for()
    assert page.evaluate("document.activeElement.dataset.unit") == "1.3"  # one goes on from there
    page.get_by_label("High end: pictures").first.get_by_role("button").nth(1).click()
    assert "&picture=" in page.url
    page.get_by_role("img", name="map of", exact=False).wait_for()
    assert real.faults(page) == []

    page.go_back()
    page.go_back()
    page.get_by_role("heading", name="“red”", exact=True).wait_for()
    page.get_by_role("button", name="Back to scores").click()
    page.get_by_role("button", name="Table").click()
    rows = page.get_by_role("table").get_by_role("row")
    assert rows.count() == 1 + 48 + 9  # heads, MLPs and the embedding
    assert page.url.endswith("#sort=table")


def test_a_head_is_opened_by_the_keyboard_and_coloured_by_every_score(page, address):
    page.goto(address)
    page.locator("[role=gridcell][tabindex='0']").focus()  # its one stop, the embedding
    for key in ("ArrowDown", "ArrowDown", "Home", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.get_by_role("heading", name="Head 1.1", exact=True).wait_for()
    assert "unit=1.1" in page.url
    page.get_by_role("heading", name="How it varies").wait_for()
    assert real.faults(page) == []
    for score in asked(address, "about")["scores"]:
        page.get_by_label("Colour by").select_option(score["key"])
        page.get_by_role("gridcell", name=f"head 3.2, {score['label']}").wait_for()


def test_a_pasted_address_shows_the_same_on_a_dark_phone(browser, address):
    with real.watched(browser, real.PHONE, dark=True) as page:
        page.goto(f"{address}#unit=0.1&score=norm&sort=value&text=blue")
        page.get_by_role("heading", name="Head 0.1", exact=True).wait_for()
        page.get_by_role("heading", name="How it varies").wait_for()
        assert page.locator(".heads-grid.sorted").count() == 1
        assert page.get_by_label("Which head speaks of").input_value() == "blue"
        assert page.evaluate("document.documentElement.scrollWidth") == real.PHONE[0]
        page.get_by_role("button", name="Back to scores").click()
        assert page.get_by_label("Colour by").input_value() == "norm"
        slider = page.get_by_label("λ of component 0", exact=True)
        slider.press("ArrowLeft")
        slider.press("ArrowLeft")
        page.get_by_role("link", name="Turn it").click()  # before the address has followed
        page.go_back()
        page.get_by_role("status").get_by_text("Accuracy").wait_for()
        assert page.url.endswith("lam=0.1:0:0.9")
        assert real.faults(page) == []


def test_a_server_that_is_gone_can_be_tried_again_and_an_address_names_what_it_can(page, address):
    page.route("**/api/*", lambda route: route.abort())
    page.goto(f"{address}#view=turn&unit=constructor&off=toString,7.2&lam=__proto__:toString:3")
    page.get_by_text("The explorer doesn't answer.").wait_for()
    page.unroute("**/api/*")
    page.troubles.clear()
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("Choose a head above").wait_for()
    page.get_by_role("gridcell", name="head 7.2", exact=False).and_(page.locator(".off")).wait_for()


def test_a_store_without_pictures_whose_classes_nothing_tells_apart(browser):
    encoder = tiny_encoder(1)
    store = replace(
        encode_dataset(encoder, TinyImages(30)), class_names=("a", "b", "c", "d" * 400, "none of it")
    )
    exploration = Exploration(Sources(()), [store], encoder)
    with real.served(exploration) as address, real.watched(browser, real.PHONE) as page:
        page.goto(f"{address}#view=pictures")
        page.get_by_role("img", name="a, picture", exact=False).first.wait_for()
        page.get_by_text("tiny/train, 30 pictures").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == real.PHONE[0]
