"""Fast paths of the operators: torch alone, one switch each."""
