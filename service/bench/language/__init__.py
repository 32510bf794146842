"""`coloq bench language`: the language contract on clean and on mixed text, and what it costs."""
