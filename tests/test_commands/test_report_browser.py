"""The page of mmrkkd report in a real browser, without a window."""

import base64
import shutil

import numpy as np
import pytest
from made_up_runs import classifier_folders, demo_folder
from PIL import Image

from mmrkkd.commands.report import report

webdriver = pytest.importorskip(
    'selenium.webdriver', reason='the package selenium is not installed'
)
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
DRIVER = shutil.which('chromedriver')

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER),
        reason=f'no browser ({", ".join(BROWSERS)}) with chromedriver here',
    ),
]


@pytest.fixture(scope='module')
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        '--headless=new',
        '--no-sandbox',
        '--disable-dev-shm-usage',
        # Or a click misses what is still being scrolled to.
        '--force-prefers-reduced-motion',
        '--window-size=1400,1000',
    ):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    """A report of detectors, and one of classifiers."""
    folder = tmp_path_factory.mktemp('pages')
    made = demo_folder(folder / 'made')
    detectors = report([made], images=8, samples=0)
    return dict(
        detectors=detectors,
        classifiers=report(
            classifier_folders(folder), folder / 'page.html', scores=12
        ),
    )


@pytest.fixture
def opened(browser, pages):
    browser.get(pages['detectors'].as_uri())
    return browser


def all_of(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def shown(browser):
    """Titles of the images in the gallery that are shown, in order."""
    return [
        article.find_element(By.TAG_NAME, 'h3').text.split()[0]
        for article in all_of(browser, '#images article')
        if article.is_displayed()
    ]


def choose(browser, name, value):
    Select(one(browser, f'#filters [name={name}]')).select_by_value(value)


def kinds(browser):
    """The kinds of boxes that are drawn, the ground truth left out."""
    drawn = {
        box.get_attribute('class').split()[-1]
        for box in all_of(browser, '#images article:not([hidden]) g.box')
    }
    return drawn - {'truth'}


def set_score(browser, value):
    browser.execute_script(
        'const slider = document.querySelector("[name=score]");'
        'slider.value = arguments[0];'
        'slider.dispatchEvent(new Event("input", {bubbles: true}))',
        value,
    )


@pytest.mark.parametrize('name', ['detectors', 'classifiers'])
def test_pages_load_without_an_error(name, browser, pages, tmp_path):
    browser.get_log('browser')
    browser.get(pages[name].as_uri())
    assert browser.get_log('browser') == []
    plots = all_of(browser, '.plot')
    assert plots and len(all_of(browser, '.plot .cartesianlayer')) == len(
        plots
    )
    # Nothing is wider than the window.
    assert browser.execute_script(
        'return document.documentElement.scrollWidth <= innerWidth'
    )
    picture = tmp_path / f'{name}.png'
    browser.save_screenshot(str(picture))
    print(f'screenshot: {picture}')
    with Image.open(picture) as image:
        assert len(image.convert('RGB').getcolors(2**24)) > 50


def test_runs_are_chosen(opened):
    def lines():
        return len(all_of(opened, '.plot:first-child .scatterlayer .trace'))

    before = lines()
    one(opened, '#runs-shown input[value=teacher]').click()
    assert lines() < before
    one(opened, '#runs-shown input[value=teacher]').click()
    assert lines() == before


def test_images_are_filtered_by_class(opened):
    everything = shown(opened)
    assert len(everything) == 8
    options = Select(one(opened, '#filters [name=class]')).options
    counts = []
    for option in options[1:]:
        choose(opened, 'class', option.get_attribute('value'))
        counts.append(len(shown(opened)))
        said = one(opened, '#shown').text
        assert said == f'{counts[-1]} of 8 images shown'
    assert 0 < min(counts) < 8
    choose(opened, 'class', '')
    assert shown(opened) == everything


def test_images_are_filtered_by_kind_of_error(opened):
    assert kinds(opened) == {'correct', 'wrong_class', 'no_object', 'missed'}
    for kind in ('correct', 'wrong_class', 'no_object'):
        one(opened, f'#filters input[value={kind}]').click()
    assert kinds(opened) == {'missed'}
    one(opened, '#filters input[value=missed]').click()
    assert shown(opened) == []


def test_a_higher_score_misses_more(opened):
    def missed():
        return len(all_of(opened, '#images g.box.missed'))

    before = missed()
    set_score(opened, 0.95)
    assert missed() > before
    assert one(opened, '#filters output').text == '0.95'
    set_score(opened, 0.3)
    assert missed() == before


def test_images_are_sorted(opened):
    by_dispute = shown(opened)
    choose(opened, 'sort', 'name')
    assert shown(opened) == sorted(by_dispute) != by_dispute
    choose(opened, 'sort', 'errors:student')
    errors = [
        len(
            article.find_elements(
                By.CSS_SELECTOR,
                'figure:nth-child(3) g.box:not(.correct)',
            )
        )
        for article in all_of(opened, '#images article')
    ]
    assert errors == sorted(errors, reverse=True) and len(set(errors)) > 1
    choose(opened, 'sort', 'disagreement')
    assert shown(opened) == by_dispute


def test_models_are_chosen(opened):
    def panels():
        return [
            title.text
            for title in all_of(
                opened, '#images article:first-child figcaption b'
            )
            if title.is_displayed()
        ]

    assert panels() == ['Ground truth', 'teacher', 'student', 'kd', 'rkkd']
    one(opened, '#filters input[value=kd]').click()
    assert panels() == ['Ground truth', 'teacher', 'student', 'rkkd']


def test_tables_are_sorted_by_their_titles(opened):
    head = one(opened, '#classes thead th:nth-child(3) button')
    for least_first in (False, True):
        head.click()
        cells = all_of(opened, '#classes tbody td:nth-child(3)')
        values = [float(cell.get_attribute('textContent')) for cell in cells]
        assert values == sorted(values, reverse=not least_first)
    parent = one(opened, '#classes thead th:nth-child(3)')
    assert parent.get_attribute('aria-sort') == 'ascending'


def test_everything_is_reached_by_keyboard(opened):
    reached = opened.execute_script(
        'return [...document.querySelectorAll("button, select, input, '
        'summary, a")].filter((each) => each.tabIndex < 0).length'
    )
    assert reached == 0
    unnamed = opened.execute_script(
        'return [...document.querySelectorAll("#filters input, '
        '#filters select, #runs-shown input")]'
        '.filter((each) => !each.labels.length).length'
    )
    assert unnamed == 0


def test_ranked_classes_open(browser, pages):
    browser.get(pages['classifiers'].as_uri())
    details = one(browser, '#images details')
    details.find_element(By.TAG_NAME, 'summary').click()
    orders = details.find_elements(By.CSS_SELECTOR, '.order')
    assert len(orders) == 2
    assert '0 of these 3 pairs in the wrong order' in orders[0].text
    assert 'tau over all classes 1.00' in orders[0].text


def test_dark_where_the_reader_wants_it_and_light_on_paper(opened):
    def background():
        opened.execute_cdp_cmd('Page.bringToFront', {})
        picture = base64.b64decode(opened.get_screenshot_as_base64())
        return picture

    def paper(**media):
        opened.execute_cdp_cmd('Emulation.setEmulatedMedia', media)
        return opened.execute_script(
            'return getComputedStyle(document.body).backgroundColor'
        )

    dark = [dict(name='prefers-color-scheme', value='dark')]
    light = [dict(name='prefers-color-scheme', value='light')]
    assert paper(features=light) == 'rgb(255, 255, 255)'
    assert paper(features=dark) == 'rgb(21, 23, 28)'
    assert background()
    assert paper(features=dark, media='print') == 'rgb(255, 255, 255)'
    assert paper(features=light, media='') == 'rgb(255, 255, 255)'


def test_it_prints(opened):
    printed = base64.b64decode(opened.print_page())
    assert printed.startswith(b'%PDF') and np.log10(len(printed)) > 4
