"""One file for each data set: a function from ``data`` of the recipe to a Source. See docs/adding/dataset.md."""
