"""Turning and looking in a real browser, with and without a server: what is shown is what is computed."""

from __future__ import annotations

import json
import re
from zipfile import ZipFile

import browser as real
import pytest
from browser import asked
from PIL import Image

from residual.explore.export import export_page
from residual.workflows.exploration import Exploration, Sources

OFF = ["mlp.7", "7.4"]


def turned(address: str, **state) -> dict:
    """What the server says of a state."""
    body = {"off": [], "weights": {}, "lambdas": {}, "adapter": None, "mode": "zero", "pictures": [], **state}
    return asked(address, "turn", body)


def confusion(page) -> list[int]:
    """The numbers of the matrix on the page, row by row, as they are told to who hears it."""
    labels = "cells => cells.map(cell => cell.getAttribute('aria-label'))"
    found = page.locator(".confusion button").evaluate_all(labels)
    return [int(re.search(r": ([\d,]+) picture", label)[1].replace(",", "")) for label in found]


def counts(answer: dict) -> list[int]:
    return [count for row in answer["confusion"]["counts"] for count in row]


def shown(page, answer: dict) -> None:
    """The page comes to show an answer: its accuracy, its matrix, and how many predictions changed."""
    page.wait_for_selector(f".outcome-number:has-text('{100 * answer['accuracy']:.1f}')")
    for _ in range(200):  # no `wait_for_function`: the page evaluates no strings
        if confusion(page) == counts(answer):
            break
        page.wait_for_timeout(25)
    assert confusion(page) == counts(answer)
    changed = f"{answer['changed']} prediction{'' if answer['changed'] == 1 else 's'} changed"
    page.wait_for_selector(f".outcome-side:has-text('{changed}')")


def test_heads_are_switched_and_components_dragged(page, address):
    page.goto(f"{address}#view=turn")
    for unit in OFF:
        page.locator(f"[data-unit='{unit}']").click()
    shown(page, turned(address, off=OFF))
    assert "off=mlp.7,7.4" in page.url
    slider = page.get_by_label(re.compile("λ of component 0"))
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile(r"lam=7\.4:0:0\.85"))
    page.locator("[data-unit='7.4']").click()  # on again
    page.locator("[data-unit='6.3']").click(modifiers=["Shift"])  # chosen, and not switched
    box = page.get_by_label("Weight of the whole unit 6.3").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=5)
    page.mouse.move(box["x"], box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile(r"weight=6\.3:0&"))
    shown(page, turned(address, off=["mlp.7"], weights={"6.3": 0}, lambdas={"7.4": {"0": 0.85}}))
    assert real.faults(page) == []
    page.get_by_role("button", name="Undo").click()  # the drag is one step
    shown(page, turned(address, off=["mlp.7"], lambdas={"7.4": {"0": 0.85}}))
    page.get_by_role("button", name="Reset all").click()
    page.wait_for_selector(".outcome-side:has-text('nothing turned')")


def test_what_is_found_is_saved_and_a_cell_shows_its_pictures(page, address):
    page.goto(f"{address}#view=turn&off=mlp.7,mlp.6,7.4")
    answer = turned(address, off=["mlp.7", "mlp.6", "7.4"])
    shown(page, answer)
    page.get_by_text("Save", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Mask of units (JSON)").click()
    mask = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert "mlp.7" in json.dumps(mask)
    assert "--off" in page.locator("code.command").inner_text()
    page.keyboard.press("Escape")
    wrong = page.locator(".confusion button.wrong[aria-disabled='false']").first
    row, column = wrong.get_attribute("data-cell").split("-")
    classes = answer["confusion"]["classes"]
    wrong.click()
    page.wait_for_url(re.compile(f"order=cell:{classes[int(row)]}:{classes[int(column)]}"))
    count = answer["confusion"]["counts"][int(row)][int(column)]
    tiles = page.get_by_role("group", name="Pictures in view").locator(".tile button")
    tiles.nth(count - 1).wait_for()
    tiles.first.click()
    page.get_by_role("heading", name="Prediction as turned").wait_for()


def test_an_adapter_is_applied_saved_and_its_worst_group_told(page, address):
    page.goto(f"{address}#view=turn")
    (adapter,) = asked(address, "about")["adapters"]
    page.locator("label.choice select").select_option(adapter["key"])
    answer = turned(address, adapter=adapter["key"], pictures=list(range(12)))
    shown(page, answer)
    worst = answer["worst_group"]
    page.wait_for_selector(
        f".outcome-side:has-text('worst group: {worst['name']} {100 * worst['accuracy']:.1f}')"
    )
    changed = [one for one in answer["predictions"] if one["now"][0]["class"] != one["was"]]
    assert changed
    seen = page.get_by_role("group", name="Pictures in view").locator("figcaption")
    seen.locator("s").nth(len(changed) - 1).wait_for()
    assert seen.locator("s").count() == len(changed)
    page.locator("[data-unit='7.4']").click()
    page.wait_for_url(re.compile("off=7.4"))
    page.get_by_text("Save", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Adapter (zipped folder)").click()
    with ZipFile(download.value.path()) as folder:
        config = json.loads(folder.read("adapter/adapter_config.json"))
    assert (config["method"], config["adapter"]["base"]["method"]) == ("edited", "coarse")


def test_pictures_by_a_text_through_all_and_through_one_head(page, address):
    page.goto(f"{address}#view=pictures")
    page.get_by_label("Order").select_option("text")
    page.get_by_label("Text (Enter)").fill("red")
    page.keyboard.press("Enter")
    for unit in ("", "0.2"):
        page.get_by_label("Seen through").select_option(unit)
        through = asked(address, f"pictures?order=text&text=red{unit and '&unit=' + unit}&limit=1")
        first = through["pictures"][0]["position"]
        page.locator(f".tile:first-child img[alt$=', picture {first}']").wait_for()
    assert "unit=0.2" in page.url
    assert real.faults(page) == []


def test_the_head_that_moves_most_between_two_stores(page, address):
    page.goto(f"{address}#view=stores")
    moves = [one for one in asked(address, "moves")["units"] if one["value"] is not None]
    most = max(moves, key=lambda one: one["value"])["unit"]
    page.locator(".moves tbody tr").first.get_by_role("button").click()
    page.wait_for_url(re.compile(f"unit={re.escape(most)}"))
    page.get_by_role("status").filter(has_text="moves").wait_for()
    assert real.faults(page) == []


def test_a_dropped_picture_is_looked_at_on_a_phone(browser, address, tmp_path):
    Image.new("RGB", (80, 60), (210, 30, 30)).save(tmp_path / "red.png")
    with real.watched(browser, real.PHONE, dark=True) as page:
        page.goto(f"{address}#view=drop")
        page.set_input_files("input[type=file]", tmp_path / "red.png")
        page.get_by_role("heading", name=re.compile("Taken for")).wait_for()
        page.get_by_role(
            "img", name=re.compile(r"the picture that was dropped; map of Head \d")
        ).first.wait_for()
        assert "picture=drop:" in page.url
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert real.faults(page) == []


@pytest.fixture(scope="module")
def exported(emoji, tmp_path_factory):
    texts = emoji.with_name("few.txt")
    texts.write_text("red\ngreen\nround\n", encoding="utf-8")
    path = tmp_path_factory.mktemp("exported") / "page.html"
    export_page(Exploration(Sources([str(emoji)], dictionary=str(texts))), path)
    return path


def test_an_exported_page_turns_by_itself_to_the_same_numbers(page, address, exported):
    weights = {"6.3": 0.4}
    page.goto(f"{exported.as_uri()}#view=turn&off={','.join(OFF)}&mode=mean&weight=6.3:0.4&unit=6.3")
    shown(page, turned(address, off=OFF, weights=weights, mode="mean"))
    page.get_by_text("This page turns whole units only").wait_for()
    assert real.faults(page) == []
    page.get_by_role("link", name="Drop").click()
    page.locator(".cannot").wait_for()
