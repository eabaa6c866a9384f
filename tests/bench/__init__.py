"""The bench: what a message costs, compared with a bare handler and with peers. Measures; decides nothing."""
