"""The sentences, tables and plot of a search for the best way to deploy."""
