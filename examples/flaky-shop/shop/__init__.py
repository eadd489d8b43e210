"""A very small shop, whose tests are flaky on purpose (see KNOWN.md)."""
