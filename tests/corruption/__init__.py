"""G4: damage anywhere is found, before a byte of it is believed."""
