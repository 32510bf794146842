"""Jobs: calls that outlive their connection and the node that took them."""
