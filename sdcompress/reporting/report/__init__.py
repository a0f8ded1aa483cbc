"""The sentences, tables and plots of a report."""
