"""What a conversation costs on the wire: formula, capture on a virtual Ethernet pair, the latency guide's tables."""
