"""GRPO on logged traffic: groups, advantages, the step in the engine process, the gate, publication, the loop."""
