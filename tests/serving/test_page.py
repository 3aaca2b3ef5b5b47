"""The page of the service: its content security policy, and what a reader does in a browser."""

import re
import shutil
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from comet_rec.serving.page import page
from tests.serving.planted import Planted, run, serve

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome")
WIDTHS = {1280: 900, 390: 844}  # width → height
TIMEOUT = 10_000


class Elements(HTMLParser):
    """Attributes of all elements, and the text of each style and script."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.texts, self.tag = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        self.tag = tag

    def handle_endtag(self, tag):
        self.tag = ""

    def handle_data(self, data):
        if self.tag in ("style", "script"):
            self.texts.append((self.tag, data))


def test_policy_allows_the_style_and_the_script_of_the_page_by_their_hashes():
    body, headers = page()
    policy = headers["Content-Security-Policy"].split("; ")
    texts = Elements(body.decode()).texts
    assert [tag for tag, _ in texts] == ["style", "script"]
    for tag, text in texts:
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert {"default-src 'none'", "connect-src 'self'", "img-src data:"} <= set(policy)


def test_no_element_has_an_inline_style_or_handler_or_names_another_origin():
    text = page()[0].decode()
    for name, value in Elements(text).attributes:
        assert name != "style"
        assert not name.startswith("on")
        assert name not in ("src", "href") or not re.match(r"(https?:)?//", value)
    assert set(re.findall(r"https?://[^/'\"]+", text)) == {"http://www.w3.org"}  # SVG's namespace


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER)
        yield browser
        browser.close()


@pytest.fixture
def planted():
    return Planted()


@pytest.fixture
def service_url(planted):
    with serve(planted) as url:
        yield url


@pytest.fixture
def visit(browser, service_url):
    """Function that opens the page, and checks of the console and of requests at the end."""
    contexts, messages, requests = [], [], []

    def opened(width=1280, scheme="light", hash_=""):
        context = browser.new_context(
            viewport={"width": width, "height": WIDTHS[width]},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        contexts.append(context)
        context.set_default_timeout(TIMEOUT)
        tab = context.new_page()
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(service_url + hash_)
        return tab

    yield opened
    for context in contexts:
        context.close()
    # Chromium reports each status from 400 on; a test that plants one expects it.
    assert [text for text in messages if "Failed to load resource" not in text] == []
    assert [url for url in requests if not url.startswith(service_url)] == []


def faults(tab):
    """Faults of accessibility that axe-core calls serious or critical."""
    violations = Axe().run(tab).response["violations"]
    return [each for each in violations if each["impact"] in ("serious", "critical")]


def items(tab, run_name="main"):
    """Ids in a list, in order, once the list and its reasons have arrived."""
    card = tab.locator(f".list.{run_name}:not([aria-busy])")
    expect(card.locator(".reason b").first).to_be_attached()
    return card.locator(".row").evaluate_all("rows => rows.map(row => row.dataset.item)")


def picked(tab):
    """Ids of the picks, from the address."""
    return tab.evaluate("location.hash").removeprefix("#picks=").split(",")


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_three_picks_give_ten_others_with_reasons(visit, width, scheme):
    tab = visit(width, scheme)
    tab.locator(".suggestion").first.click()
    first_list = items(tab)
    tab.locator("#search").press_sequentially("i")
    tab.locator("[role=option]").nth(1).click()
    expect(tab.locator(".chip")).to_have_count(2)
    tab.locator(".suggestion").first.click()
    expect(tab.locator(".chip")).to_have_count(3)
    expect(tab.locator("#announcement")).to_contain_text("new of 10")

    last_list = items(tab)
    assert len(set(last_list)) == 10
    assert not set(last_list) & set(picked(tab))
    assert last_list != first_list

    opener = tab.locator(".list.main .open").first
    opener.click()
    assert opener.get_attribute("aria-expanded") == "true"
    reasons = tab.locator(f"[id='{opener.get_attribute('aria-controls')}'] tbody tr")
    expect(reasons).to_have_count(3)
    expect(reasons.first).to_be_visible()

    assert faults(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@needs_browser
def test_search_works_with_the_keyboard_alone(visit):
    tab = visit()
    search = tab.get_by_role("combobox")
    search.press_sequentially("film 1")
    expect(search).to_have_attribute("aria-expanded", "true")
    search.press("ArrowDown")
    active = tab.locator("[role=option][aria-selected=true]")
    expect(active).to_contain_text("Film 10")
    expect(search).to_have_attribute("aria-activedescendant", active.get_attribute("id"))
    assert faults(tab) == []
    search.press("Enter")
    expect(tab.get_by_role("button", name="Remove Film 10 (1960)")).to_be_visible()
    search.press_sequentially("film 2")
    expect(tab.locator("[role=option]").first).to_be_visible()
    search.press("Escape")
    expect(tab.locator("#popup")).to_be_hidden()
    search.press("Escape")
    expect(search).to_have_value("")
    search.press("Backspace")
    expect(tab.locator(".chip")).to_have_count(0)
    expect(tab.locator("#empty")).to_be_visible()


@needs_browser
def test_later_search_ends_an_earlier_one(visit):
    tab = visit()
    search = tab.locator("#search")
    earlier = re.compile("search=film%201$")
    tab.route(earlier, lambda route: None)  # never answered
    with tab.expect_request(earlier):
        search.fill("film 1")
    with tab.expect_event("requestfailed", lambda request: bool(earlier.search(request.url))):
        search.fill("film 39")
    expect(tab.locator("[role=option]")).to_have_text(["Film 39 198911 users"])
    tab.unroute_all(behavior="ignoreErrors")


@needs_browser
def test_link_holds_the_picks_and_names_items_that_the_run_lacks(visit):
    tab = visit(hash_="#picks=7,3,4711")
    expect(tab.locator(".chip")).to_have_text(["Film 7 1957×", "Film 3 1953×"])
    expect(tab.get_by_role("alert")).to_contain_text("1 item")
    items(tab)
    assert picked(tab) == ["7", "3"]


@needs_browser
def test_common_items_show_their_rank_in_the_other_list(visit):
    tab = visit(hash_="#picks=1")
    main, compare = items(tab), items(tab, "compare")
    common = set(main) & set(compare)
    assert len(common) == 8  # the second model leaves out items 5 and 10
    badges = tab.locator(".list.main .both").all_text_contents()
    assert [int(re.search(r"EASE #(\d+)", text)[1]) for text in badges] == [
        compare.index(item) + 1 for item in main if item in common
    ]
    expect(tab.locator("#overlap-note")).to_contain_text("8 of 10")


@needs_browser
def test_phone_shows_one_of_two_lists(visit):
    tab = visit(390, hash_="#picks=1")
    expect(tab.locator(".list.main")).to_be_visible()
    expect(tab.locator(".list.compare")).to_be_hidden()
    tab.get_by_role("button", name="EASE", exact=True).click()
    expect(tab.locator(".list.compare")).to_be_visible()
    expect(tab.locator(".list.main")).to_be_hidden()


@needs_browser
def test_page_follows_a_swap_of_the_run(visit, planted):
    tab = visit(hash_="#picks=1")
    items(tab)
    planted.versions["main"] = "feedfeedfeed"
    planted.runs = [run("main", version="feedfeedfeed", epochs=77), run("compare")]
    tab.locator(".suggestion").first.click()
    expect(tab.locator(".list.main header")).to_contain_text("feedfeedfeed")
    expect(tab.locator(".figures")).to_contain_text("77")


@needs_browser
def test_one_run_has_one_list(visit, planted):
    planted.runs = [run("main", metrics=None, curves=[], filters=[])]
    tab = visit(hash_="#picks=1")
    assert len(items(tab)) == 10
    expect(tab.locator(".list")).to_have_count(1)
    expect(tab.locator("#about")).to_contain_text("There are no figures")
    assert faults(tab) == []


@needs_browser
def test_models_that_cannot_fold_in_or_explain_say_so(visit, planted):
    planted.runs = [run("main", explains=False), run("compare", model="mf", folds_in=False)]
    tab = visit(hash_="#picks=1")
    expect(tab.locator(".list.main .row")).to_have_count(10)
    expect(tab.locator(".list.main .open")).to_have_count(0)
    expect(tab.locator(".list.compare")).to_contain_text("MF has learnt its own users only")
    assert "/v1/explain" not in planted.requests


@needs_browser
def test_list_of_a_user_of_the_log_has_reasons_from_the_history(visit):
    tab = visit()
    tab.get_by_role("button", name="A user of the log").click()
    tab.locator("#user").fill("999")
    tab.locator("#user").press("Enter")
    expect(tab.locator(".list.main")).to_contain_text("COMET knows no user with the id 999")
    tab.locator("#user").fill("5")
    tab.locator("#user").press("Enter")
    assert len(items(tab)) == 10
    assert tab.evaluate("location.hash") == "#user=5"
    expect(tab.locator(".reason").first).to_have_text("because of Film 38 and Film 39")


@needs_browser
def test_page_asks_for_an_api_key(visit, planted):
    planted.key = "right"
    tab = visit()
    tab.locator("#key").fill("wrong")
    tab.locator("#key").press("Enter")
    expect(tab.get_by_role("alert")).to_contain_text("does not accept this API key")
    assert faults(tab) == []
    tab.locator("#key").fill("right")
    tab.locator("#key").press("Enter")
    tab.locator(".suggestion").first.click()
    assert len(items(tab)) == 10


@needs_browser
def test_busy_service_is_asked_again(visit, planted):
    tab = visit()
    planted.busy = 2
    tab.locator(".suggestion").first.click()
    expect(tab.get_by_role("alert").first).to_contain_text("busy")
    assert faults(tab) == []
    assert len(items(tab)) == 10
