"""What a person reads: tables in the terminal and one HTML page. Computes no figure of its own."""
