"""Everything for development: `smsd serve --dev`, `smsd phone`, and the fixture of
`smsd.testing`.

Production must not import anything from here.

- `workbench`, `environment`, `welcome`, `refresh`, `failures`: the development server.
- `web`, `desk`, `order`, `verdict`, `hooks`, `counting`, `page/`: the phone page.
- `terminal`, `target`, `console`, `probe`: the phone in the terminal.
- `rehearsal`, `stage`, `virtual_time`: a dialogue under test.
- `switch`: takes the store down, for all of them.
"""
