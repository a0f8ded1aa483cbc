"""Write an artifact in a lower precision, which its graphs hold, and prove what that costs. Never imports torch."""
