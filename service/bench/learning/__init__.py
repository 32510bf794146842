"""What `coloq bench learn` learns from and how it is judged: prompts, reward, exams, deliberate staleness, charts."""
