"""Write an artifact in a lower precision and measure what that costs. Never imports torch."""
