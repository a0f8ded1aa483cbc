"""Backbone -> cut points -> heads -> one network with exits. Import from the files; this package loads nothing."""
