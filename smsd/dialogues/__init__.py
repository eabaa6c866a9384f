"""User code: how smsd loads and calls it, and two dialogues that come with smsd.

`greeting` and `directory` are examples, too. They import nothing of smsd but its front
door.
"""
