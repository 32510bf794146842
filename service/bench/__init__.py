"""`coloq bench`: the node under load on random weights of a given shape, beside its peers."""
