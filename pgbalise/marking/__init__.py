"""Keys, codewords, policy, and how a cell carries a bit. Pure code that needs only numpy."""
