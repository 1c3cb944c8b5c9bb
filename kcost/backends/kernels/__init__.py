"""What a backend runs where its own operations would be slow: fused blocks, chains of convolutions, int8 products."""
