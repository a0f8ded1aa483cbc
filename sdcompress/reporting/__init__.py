"""Reports and explanations: one JSON file with the measurements, and Markdown and HTML made from it."""
