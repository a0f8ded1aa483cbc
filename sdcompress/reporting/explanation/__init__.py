"""How an explanation is said and drawn: sentences, tables, plots."""
