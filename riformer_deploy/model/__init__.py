"""RIFormer as a network: its variants, its re-parameterization, what it costs."""
