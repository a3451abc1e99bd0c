"""Property-based tests; a package, so that its conftest is its own."""
