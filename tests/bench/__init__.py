"""The bench: what a message costs, compared with a bare handler and other servers. It
passes no verdict."""
