"""Dialogues that come with smsd. They are examples too: they import nothing of smsd but its front door."""
