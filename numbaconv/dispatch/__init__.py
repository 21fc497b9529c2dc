"""Which algorithm runs: selection is pure and costs microseconds; nothing is measured here."""
