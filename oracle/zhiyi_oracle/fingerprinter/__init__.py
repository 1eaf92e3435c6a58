"""The fingerprinter: makes each buyer's copy, reveals its key once paid for, opens shares when a case asks."""
