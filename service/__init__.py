"""The node: configuration, CLI, engine, HTTP, store, telemetry. Wires the other packages together."""
