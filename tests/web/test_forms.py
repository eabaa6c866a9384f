"""Forms are read exactly as Tornado reads them."""

from hypothesis import given
from hypothesis import strategies as st
from tornado.escape import parse_qs_bytes

from smsd.web.forms import parse_form


@given(
    st.binary(max_size=80)
    | st.text("ab=&+%20gé\xff", max_size=40).map(lambda text: text.encode("latin-1"))
)
def test_form_is_read_as_tornado_reads_it(body: bytes) -> None:
    assert parse_form(body) == parse_qs_bytes(body, keep_blank_values=True)
