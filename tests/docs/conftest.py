"""The browser of the phone page's tests serves the site's tests too."""

from tests.browser.conftest import browser

__all__ = ["browser"]
