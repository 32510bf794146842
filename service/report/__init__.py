"""A run's report: series of its steps' figures, charts, one page, TensorBoard files. It reads the admin API alone."""
