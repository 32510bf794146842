"""Settings of the trainer's tests."""

import torch

# Models of a few thousand parameters: a second thread costs more than it brings, ten times more on a busy machine.
torch.set_num_threads(1)
