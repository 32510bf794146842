"""The systems that a node is compared with, each in a process of its own: bare vLLM, and TRL's GRPOTrainer."""
