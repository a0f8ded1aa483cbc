"""One data set per file; each is a function from the recipe's ``data`` to a Source. See docs/adding/dataset.md."""
