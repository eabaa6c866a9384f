"""The pytest plugin for dialogue authors."""
