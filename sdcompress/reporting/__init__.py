"""Report: one JSON file with the evidence; Markdown, HTML and plots are drawn from it."""
