"""The sentences, tables and plots of an explanation."""
