"""What layers become: int8 layers, fused encoder blocks and chains of convolutions, and how they are recognised."""
