"""Everything for development: `smsd serve --dev`, `smsd phone`, and the fixture of
`smsd.testing`.

Production must not import anything from here. What happens to messages arrives as events
of `smsd.exchange.events.Observer`, and is never read from log lines.

- `dev_server`, `dev_service`, `environment`, `live_reload`, `failures`: the development server.
- `page_handlers`, `phone_page`, `verdict`, `page/`: the phone page.
- `terminal`, `terminal_target`: the phone in the terminal.
- `fixture`, `virtual_time`: a dialogue under test.
- `watched_service`, `switch`: the service whose store can be taken down, for all of them.
"""
