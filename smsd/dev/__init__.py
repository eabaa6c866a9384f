"""Everything for development: `smsd serve --dev`, `smsd phone`, and the fixture of
`smsd.testing`.

Production must not import anything from here.

- `dev_service`, `dev_server`, `environment`, `live_reload`, `failures`: the development server.
- `page_handlers`, `phone_page`, `order`, `verdict`, `hooks`, `counting`, `page/`: the phone page.
- `terminal`, `terminal_target`, `console`, `probe`: the phone in the terminal.
- `fixture`, `stage`, `virtual_time`: a dialogue under test.
- `switch`: takes the store down, for all of them.
"""
