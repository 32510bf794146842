"""`coloq demo`: the whole loop on this machine, against a node's HTTP API alone."""
